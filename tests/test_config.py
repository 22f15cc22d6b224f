"""Configuration files: what is in force, and errors that name the file, the key and the way out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minprov.actions import Policy
from minprov.config import (
    DUTIES,
    MAX_CONFIG_SIZE,
    OWNERS,
    POOL_DUTY,
    SETTINGS,
    AskPassword,
    Duty,
    Execute,
    Loop,
    OnFailure,
    OnPool,
    Options,
    load,
    load_duty,
    schema_of,
)
from minprov.errors import ProvisioningError, Reason

SECONDS = "seconds from 0.001 to 604800"


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
        sudo_ask_password=AskPassword.NEVER,
        sudo=Policy.OFF,
        custom_data_execute=Execute.BEFORE_READY,
        media=("/dev/sr1",),
    )


def test_an_unknown_key_names_the_nearest_one(tmp_path: Path) -> None:
    path = write(tmp_path / "m.toml", "[user]\nshel = 1\n")
    assert error_of(path) == {"file": path, "key": "user.shel", "detail": "unknown key", "nearest": "user.shell"}


@pytest.mark.parametrize("text", [f"{'a.' * 3000}b = 1", f"[{'a.' * 3000}b]"])
def test_a_key_of_thousands_of_tables_is_an_unknown_one(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "m.toml", text)
    error = error_of(path)
    assert (error["key"], error["detail"]) == ("a.a.a.a.a", "unknown key")


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("timeout = 'x'", "timeout", SECONDS),
        ("timeout = 0", "timeout", SECONDS),
        ("timeout = inf", "timeout", SECONDS),
        ("timeout = nan", "timeout", SECONDS),
        ("timeout = 1e300", "timeout", SECONDS),
        ("timeout = 1e-9", "timeout", SECONDS),
        (f"timeout = {'9' * 400}", "timeout", SECONDS),
        ("timeout = true", "timeout", SECONDS),
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


@pytest.mark.parametrize(
    "text", ["= 1", "a = ", "\ufeffx", "a = 1\na = 2", "a = " + "[" * 100_000, f"timeout = {'9' * 5000}"]
)
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "m.toml", text)
    assert error_of(path)["file"] == path


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_bytes(b"\xff\xfe")
    assert error_of(str(path))["file"] == str(path)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    assert error_of(str(tmp_path / "none.toml"))["detail"] == "No such file or directory"


NO_SETTINGS = {"duties", "hooks", "hooks_flags", "left_pool", "preprovisioning"}


def test_every_option_can_be_set_by_exactly_one_key() -> None:
    assert sorted(setting.field for setting in SETTINGS.values()) == sorted(set(Options._fields) - NO_SETTINGS)


# -- duties ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duty", sorted(set(DUTIES.values())))
def test_every_option_of_a_duty_can_be_set_by_exactly_one_key_of_its_tables(duty: str) -> None:
    schema = schema_of(duty)
    assert sorted(setting.field for setting in schema.settings.values()) == sorted(schema.options._fields)
    tables = {table for table, owner in DUTIES.items() if owner == duty}
    assert {key.partition(".")[0] for key in schema.settings} == tables
    policies = {schema.options._field_defaults[schema.settings[f"{table}.policy"].field] for table in tables}
    assert policies == {Policy.OFF}


def test_the_table_of_a_duty_is_checked_by_every_run_and_in_force_for_the_duty_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "m.toml", 'timeout = 5\n[swap]\npolicy = "required"\nsize = "2GiB"\npriority = 3\n')
    duty = Duty("swap", Policy.REQUIRED, "resource-disk", "minprov-resource-disk.service")
    assert load(path) == Options(timeout=5.0, duties=(duty,))
    options = load_duty("resource_disk", path)
    assert (options.swap, options.swap_size, options.swap_priority) == (Policy.REQUIRED, "2GiB", 3)
    assert options.resource_disk is Policy.OFF


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("swap.sizes = 1", {"key": "swap.sizes", "detail": "unknown key", "nearest": "swap.size"}),
        ("swop.policy = 1", {"key": "swop.policy", "detail": "unknown key", "nearest": "swap.policy"}),
        ("swap.size = '2GB'", {"key": "swap.size", "detail": "expected auto, or a size as in 2GiB or 512MiB"}),
        ("swap.priority = -1", {"key": "swap.priority", "detail": "expected a whole number from 0 to 32767"}),
        ("swap.priority = true", {"key": "swap.priority", "detail": "expected a whole number from 0 to 32767"}),
        ("resource-disk.device = '/etc'", {"key": "resource-disk.device", "detail": "expected a path below /dev"}),
    ],
)
def test_a_mistake_in_the_table_of_a_duty_is_found_by_a_first_boot(
    tmp_path: Path, text: str, data: dict[str, str]
) -> None:
    path = write(tmp_path / "m.toml", text)
    assert error_of(path) == {"file": path, **data}


def test_a_duty_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(OWNERS, "swap", "not_installed")
    error = error_of(write(tmp_path / "m.toml", "[swap]\npolicy = 'off'\n"))
    assert error == {"duty": "not_installed", "detail": "this installation has no minprov-duties"}


def test_without_the_table_of_a_duty_nothing_of_it_is_imported(tmp_path: Path) -> None:
    path = write(tmp_path / "m.toml", "timeout = 1\n")
    program = "import sys; from minprov.config import load; load(sys.argv[1])\n"
    program += "print([module for module in sys.modules if 'duties' in module])"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_pooled_vm_waits_where_the_key_of_that_duty_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "m.toml", 'preprovisioning = "wait"\n')
    assert load(path) == Options(preprovisioning=OnPool.WAIT)
    assert schema_of(POOL_DUTY).options() == (OnPool.REFUSE,) == (Options().preprovisioning,)
    path = write(tmp_path / "n.toml", 'preprovisioning = "hope"\n')
    assert error_of(path) == {"file": path, "key": "preprovisioning", "detail": "expected one of refuse, wait"}


def test_a_first_boot_knows_of_hooks_where_they_are_and_which_files_say_so(tmp_path: Path) -> None:
    path = write(tmp_path / "m.toml", "[hooks]\ndirectory = '/etc/hooks'\ntime-limit = 5\nfailure = 'warn'\n")
    assert load(path) == Options(hooks="/etc/hooks", hooks_flags=("--config", path))
    assert load_duty("hooks", path) == ("/etc/hooks", 5.0, OnFailure.WARN)
    assert load(write(tmp_path / "n.toml", "hooks.time-limit = 5\n")) == Options()
    path = write(tmp_path / "o.toml", "hooks.directory = 'hooks'\n")
    assert error_of(path)["detail"] == "expected an absolute path, or an empty string"


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


def test_a_file_that_cannot_be_read_is_named_at_once(tmp_path: Path) -> None:
    loop, fifo, long = tmp_path / "loop.toml", tmp_path / "fifo.toml", tmp_path / "long.toml"
    loop.symlink_to(loop)
    os.mkfifo(fifo)
    long.write_text("#" * (MAX_CONFIG_SIZE + 1))
    assert error_of(str(loop)) == {"file": str(loop), "detail": "Too many levels of symbolic links"}
    assert error_of(str(fifo)) == {"file": str(fifo), "detail": "not a regular file"}
    assert error_of(str(long)) == {"file": str(long), "detail": "larger than 1048576 bytes"}
    (tmp_path / "m.toml.d").symlink_to(loop)
    (tmp_path / "m.toml").touch()
    assert error_of(str(tmp_path / "m.toml"))["file"] == str(tmp_path / "m.toml.d")


def test_root_stays_open_where_nobody_could_become_root(tmp_path: Path) -> None:
    path = write(tmp_path / "m.toml", 'root-password.policy = "required"\nsudo.policy = "off"\n')
    assert error_of(path)["key"] == "root-password.policy"


def test_the_core_has_forty_settings_at_most() -> None:
    # What it is not about belongs to a duty, with a table of its own.
    assert len(SETTINGS) <= 40
