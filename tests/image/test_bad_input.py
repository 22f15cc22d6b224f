"""Trees that are damaged or made to do harm: each check ends, with an answer or as unknown, and reads nothing else."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minprov.cli import run
from minprov.image.checks.outcome import Outcome, run_checks
from minprov.image.findings import Severity
from minprov.image.subject import Subject
from minprov.image.tree import Tree
from tests.image.recorded import archive, compressed, make_tree

INITRD = "boot/initrd.img-6.1.0-27-cloud-amd64"
LIMIT = 20.0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    make_tree("debian", root)
    return root


def outcome_of(root: Path) -> Outcome:
    began = time.monotonic()
    outcome = run_checks(Subject(Tree(str(root))))
    assert time.monotonic() - began < LIMIT
    return outcome


def found(outcome: Outcome, check: str) -> list[tuple[Severity, str]]:
    return [(finding.severity, finding.what) for finding in outcome.findings if finding.id == check]


@pytest.mark.parametrize("target", ["{outside}", "../../../../../../../..{outside}"])
def test_no_link_leads_out_of_the_tree(target: str, tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("/dev/vda1 / ext4 defaults 0 1\n")
    (tree / "etc/fstab").unlink()
    (tree / "etc/fstab").symlink_to(target.format(outside=outside))
    assert found(outcome_of(tree), "fstab") == []


def test_a_directory_that_is_a_link_stays_in_the_tree(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/ssh_host_rsa_key").write_text("key")
    shutil.rmtree(tree / "etc/ssh")
    (tree / "etc/ssh").symlink_to(tmp_path / "elsewhere")
    assert found(outcome_of(tree), "host-keys") == []


@pytest.mark.parametrize("name", ["etc/fstab", "etc/machine-id", "boot/grub/grub.cfg", "etc/ssh/sshd_config", INITRD])
def test_no_fifo_is_waited_for(name: str, tree: Path) -> None:
    (tree / name).unlink()
    os.mkfifo(tree / name)
    outcome_of(tree)


@pytest.mark.root
def test_no_device_is_opened(tree: Path) -> None:
    (tree / "etc/fstab").unlink()
    os.mknod(tree / "etc/fstab", 0o20666, os.makedev(1, 5))  # /dev/zero has no end
    outcome_of(tree)


def test_links_that_go_round_are_unknown(tree: Path) -> None:
    (tree / "etc/fstab").unlink()
    (tree / "etc/fstab").symlink_to("fstab")
    assert found(outcome_of(tree), "fstab")[0][0] is Severity.UNKNOWN


def test_a_file_of_gigabytes_is_unknown(tree: Path) -> None:
    os.truncate(tree / "etc/fstab", 8 << 30)
    severity, what = found(outcome_of(tree), "fstab")[0]
    assert severity is Severity.UNKNOWN
    assert "larger than" in what


def zeros() -> bytes:
    return compressed(gzip.compress(bytes(1 << 30), compresslevel=1), "none")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: b"", "no archive"),
        (lambda: b"no archive at all", "unknown form"),
        (lambda: archive({"bin/sh": "text"})[:200], "ends within"),
        (lambda: archive({"bin/sh": "text"}).replace(b"070701", b"07070X", 1), "unknown form"),
        (lambda: archive({"bin/sh": "text"})[:54] + b"zzzzzzzz" + archive({"bin/sh": "text"})[62:], "damaged"),
        (lambda: gzip.compress(archive({"bin/sh": "text"}))[:40], "ends within"),
        (lambda: gzip.compress(archive({"bin/sh": "text"}))[:20] + b"\xff" * 99, "damaged gzip"),
        (lambda: compressed(archive({"bin/sh": "text" * 99}), "zstd")[:30], "no archive"),
        (lambda: gzip.compress(archive({"bin/sh": "x"})[:-124]), "ends within"),
        (zeros, "no archive"),
    ],
)
def test_a_damaged_initramfs_is_unknown(make: Callable[[], bytes], what: str, tree: Path) -> None:
    (tree / INITRD).write_bytes(make())
    severity, said = found(outcome_of(tree), "initramfs-hyperv")[0]
    assert severity is Severity.UNKNOWN
    assert what in said


def test_an_initramfs_of_gigabytes_is_bounded(tree: Path) -> None:
    (tree / INITRD).write_bytes(b"")
    os.truncate(tree / INITRD, 64 << 30)
    severity, said = found(outcome_of(tree), "initramfs-hyperv")[0]
    assert (severity, said) == (Severity.UNKNOWN, "not judged: it is larger than any real one")


def test_a_decompressor_that_is_not_there_makes_it_unknown(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minprov.image.initramfs.find_tool", lambda name: None)
    assert found(outcome_of(tree), "initramfs-hyperv") == [
        (Severity.UNKNOWN, "not judged: zstd is not installed, which decompresses it")
    ]


@pytest.mark.parametrize(("name", "outside"), [("minprov.toml", "10.toml"), ("minprov.toml.d", "")])
def test_a_configuration_that_is_a_link_is_unknown(name: str, outside: str, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/10.toml").write_text("nonsense = true\n")
    (tree / "etc/minprov").mkdir()
    (tree / "etc/minprov" / name).symlink_to(tmp_path / "outside" / outside)
    assert found(outcome_of(tree), "minprov-toml") == [(Severity.UNKNOWN, "not judged: it is a link")]


def test_entries_without_end_are_unknown(tree: Path) -> None:
    line = "linux /boot/vmlinuz-6.1.0-27-cloud-amd64 root=/dev/vda1\n"
    (tree / "boot/grub/grub.cfg").write_text(line * 60_000)
    severity, what = found(outcome_of(tree), "root-device")[0]
    assert (severity, what) == (Severity.UNKNOWN, "not judged: more than 500 entries")


def test_findings_without_end_are_bounded(tree: Path) -> None:
    (tree / "etc/fstab").write_text("/dev/vda1 / ext4 defaults 0 0\n" * 100_000)
    severities = [severity for severity, _ in found(outcome_of(tree), "fstab")]
    assert severities == [Severity.FAILS] * 1000 + [Severity.UNKNOWN]


def test_accounts_without_end_take_seconds(tree: Path) -> None:
    (tree / "etc/passwd").write_text("".join(f"user{n}:x:9:9::/:/bin/sh\n" for n in range(99_999)) + "a::9:9:::\n")
    (tree / "etc/shadow").write_text("".join(f"user{n}:*::::::::\n" for n in range(99_999)))
    assert [what for _, what in found(outcome_of(tree), "passwords")] == ["a has an empty password"]


def test_variables_that_double_stay_bounded(tree: Path) -> None:
    grub = tree / "boot/grub/grub.cfg"
    doubled = "".join(f"set v{number + 1}=$v{number}$v{number}\n" for number in range(60))
    grub.write_text(f"set v0=root=/dev/vda1,\n{doubled}" + grub.read_text().replace("ro console", "ro $v60 console"))
    assert found(outcome_of(tree), "root-device")[0][0] is Severity.FAILS


def test_files_that_include_others_twice_and_again_end(tree: Path) -> None:
    for number in range(15):
        (tree / f"etc/sudoers.d/at{number}").write_text(f"@include /etc/sudoers.d/at{number + 1}\n" * 2)
        (tree / f"etc/ssh/at{number}").write_text(f"Include /etc/ssh/at{number + 1}\n" * 2)
    (tree / "etc/ssh/sshd_config").write_text("Include /etc/ssh/at0\n")
    outcome = outcome_of(tree)
    assert found(outcome, "sudo-password")[0][0] is Severity.UNKNOWN
    assert found(outcome, "sshd-login")[0][0] is Severity.UNKNOWN


def test_a_pattern_over_links_that_go_round_ends(tree: Path) -> None:
    for number in range(9):
        (tree / f"etc/ssh/again{number}").symlink_to(".")
    (tree / "etc/ssh/sshd_config").write_text("Include " + "*/" * 12 + "x.conf\n")
    outcome_of(tree)


def test_what_goes_to_a_terminal_has_no_control_characters(tree: Path) -> None:
    grub = tree / "boot/grub/grub.cfg"
    grub.write_text(grub.read_text().replace("ro console", "ro root=/dev/vda1\x1b[2J console"))
    values = [finding.value for finding in outcome_of(tree).findings if finding.id == "root-device"]
    assert values == ["root=/dev/vda1\\x1b[2J"]


def test_what_a_system_calls_itself_has_no_control_characters(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "etc/os-release").unlink(missing_ok=True)
    (tree / "etc/os-release").write_text('PRETTY_NAME="\x1b[2Jgone"\n')
    assert run(["check", "--root", str(tree)]) == 0
    assert r": \x1b[2Jgone, kernel" in capsys.readouterr().out


def test_a_tree_whose_name_is_no_text_has_a_report(tree: Path, tmp_path: Path) -> None:
    named = tree.rename(os.fsdecode(bytes(tmp_path) + b"/\xff"))
    assert run(["check", "--root", str(named), "--junit", str(tmp_path / "report.xml")]) == 0
    assert r"\udcff" in (tmp_path / "report.xml").read_text()


def test_a_damaged_configuration_of_a_kernel_is_unknown(tree: Path) -> None:
    [lists] = tree.glob("usr/lib/modules/*/modules.dep")
    lists.unlink()
    (tree / f"boot/config-{lists.parent.name}").write_bytes(b"\x1f\x8bgarbage")
    [finding] = [finding for finding in outcome_of(tree).findings if finding.id == "kernel-hyperv"]
    assert finding.severity is Severity.UNKNOWN
    assert finding.file == f"/boot/config-{lists.parent.name}"


def test_numbers_of_thousands_of_digits_are_none(tree: Path) -> None:
    digits = "9" * 5000
    grub = tree / "boot/grub/grub.cfg"
    grub.write_text(f"linux /boot/vmlinuz-6.1.0-27-cloud-amd64 rootdelay={digits} nvme_core.io_timeout={digits}\n")
    (tree / "etc/passwd").write_text(f"a:x:{digits}:1:::\n")
    (tree / "etc/ssh/sshd_config").write_text(f"ClientAliveInterval {digits}\n")
    outcome_of(tree)


def test_names_that_are_no_text_are_passed_over(tree: Path) -> None:
    (tree / os.fsdecode(b"etc/ssh/ssh_host_\xff_key")).write_text("key")
    assert found(outcome_of(tree), "host-keys")[0][0] is Severity.FAILS


@pytest.fixture
def tree_of_root() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    make_tree("debian", root)
    yield root
    shutil.rmtree(root)


@pytest.mark.root
def test_what_a_user_may_not_read_is_unknown(tree_of_root: Path) -> None:
    outcome_of(tree_of_root)  # what is imported late may be where a user cannot read
    (tree_of_root / "etc/shadow").chmod(0o600)
    (tree_of_root / INITRD).chmod(0o600)
    os.seteuid(65534)
    try:
        outcome = outcome_of(tree_of_root)
    finally:
        os.seteuid(0)
    assert found(outcome, "passwords")[0] == (Severity.UNKNOWN, "not judged: Permission denied")
    assert found(outcome, "initramfs-hyperv")[0][0] is Severity.UNKNOWN
    assert not outcome.fails


@pytest.mark.parametrize("name", ["etc/os-release", "boot/grub/grub.cfg"])
def test_what_the_answer_begins_with_may_be_unreadable(
    name: str, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / name).unlink(missing_ok=True)
    (tree / name).symlink_to(Path(name).name)  # goes round
    assert run(["check", "--root", str(tree)]) == 0
    assert "checks passed" in capsys.readouterr().out


def test_nothing_is_written(tree: Path) -> None:
    def state() -> str:
        return subprocess.run(
            ["find", ".", "-printf", "%p %s %T@ %C@ %m\\n"], cwd=tree, capture_output=True, text=True, check=True
        ).stdout

    before = state()
    outcome_of(tree)
    assert state() == before
