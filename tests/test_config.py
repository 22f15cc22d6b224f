"""Configuration files: what is in force, and errors that name the file, the key and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from minprov.actions import Policy
from minprov.config import SETTINGS, AskPassword, Loop, Options, load
from minprov.errors import ProvisioningError, Reason


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def error_of(path: str) -> dict[str, str]:
    with pytest.raises(ProvisioningError) as caught:
        load(path)
    assert caught.value.reason is Reason.CONFIG_INVALID
    return caught.value.data


def test_later_files_win_and_flags_win_over_files(tmp_path: Path) -> None:
    path = write(tmp_path / "m.toml", 'timeout = 1\nloop = "uvloop"\n[user]\nshell = "/a"\ngroups = ["x"]\n')
    write(tmp_path / "m.toml.d" / "10.toml", 'timeout = 2.5\n[user]\nshell = "/b"\n')
    write(tmp_path / "m.toml.d" / "20.toml", '[user]\nshell = "/c"\n')
    write(tmp_path / "m.toml.d" / "30.txt", "not read")
    options = load(path, timeout=9.0)
    assert (options.timeout, options.shell, options.groups, options.loop) == (9.0, "/c", ("x",), Loop.UVLOOP)


def test_every_kind_of_value_is_taken(tmp_path: Path) -> None:
    text = (
        'sudo = { ask-password = "never", policy = "off" }\ncustom-data.execute = true\nsources.media = ["/dev/sr1"]\n'
    )
    options = load(write(tmp_path / "m.toml", text))
    assert options == Options(
        sudo_ask_password=AskPassword.NEVER, sudo=Policy.OFF, custom_data_execute=True, media=("/dev/sr1",)
    )


def test_an_unknown_key_names_the_nearest_one(tmp_path: Path) -> None:
    path = write(tmp_path / "m.toml", "[user]\nshel = 1\n")
    assert error_of(path) == {"file": path, "key": "user.shel", "detail": "unknown key", "nearest": "user.shell"}


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("timeout = 'x'", "timeout", "a positive number of seconds"),
        ("timeout = 0", "timeout", "a positive number of seconds"),
        ("timeout = inf", "timeout", "a positive number of seconds"),
        ("timeout = nan", "timeout", "a positive number of seconds"),
        ("timeout = true", "timeout", "a positive number of seconds"),
        ("loop = 'x'", "loop", "one of auto, uvloop, asyncio"),
        ("loop = []", "loop", "one of auto, uvloop, asyncio"),
        ("user.shell = 1", "user.shell", "a string"),
        ("user.groups = 'adm'", "user.groups", "a list of strings"),
        ("user.groups = [1]", "user.groups", "a list of strings"),
        ("user.allow-system-account = 1", "user.allow-system-account", "true or false"),
        ("hostname.policy = 'on'", "hostname.policy", "one of required, best-effort, off"),
    ],
)
def test_a_wrong_value_says_what_is_expected(tmp_path: Path, text: str, key: str, expected: str) -> None:
    path = write(tmp_path / "m.toml", text)
    assert error_of(path) == {"file": path, "key": key, "detail": f"expected {expected}"}


@pytest.mark.parametrize("text", ["= 1", "a = ", "\ufeffx", "a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "m.toml", text)
    assert error_of(path)["file"] == path


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_bytes(b"\xff\xfe")
    assert error_of(str(path))["file"] == str(path)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    assert error_of(str(tmp_path / "none.toml"))["detail"] == "No such file or directory"


def test_every_option_can_be_set_by_exactly_one_key() -> None:
    assert sorted(setting.field for setting in SETTINGS.values()) == sorted(Options._fields)


@pytest.mark.parametrize("url", ["", "localhost", "https://169.254.169.254", "http://", "http:///"])
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ProvisioningError) as caught:
        load(imds_url=url)
    assert caught.value.data["key"] == "sources.imds-url"


@pytest.mark.parametrize("key", [key for key, setting in SETTINGS.items() if setting.after_ready])
def test_a_step_that_comes_after_ready_cannot_be_required(tmp_path: Path, key: str) -> None:
    file = tmp_path / "minprov.toml"
    file.write_text(f'{key} = "required"\n')
    with pytest.raises(ProvisioningError) as error:
        load(str(file))
    assert error.value.reason is Reason.CONFIG_INVALID
    assert error.value.data["key"] == key
    assert "after Ready" in error.value.data["detail"]
