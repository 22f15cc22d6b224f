"""`check --fix` does what the check asks for, keeps what was there, and says what it cannot do."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from minprov.cli import run
from minprov.commands.check import build_parser
from minprov.errors import ProvisioningError, Reason
from minprov.image.fixes.console import ARM, X86, with_serial_console
from minprov.image.fixes.files import VF_FILES, plan_vf
from minprov.image.fixes.fixing import FIXES
from minprov.image.fixes.steps import BACKUP
from minprov.image.subject import Subject
from minprov.image.tree import Tree
from minprov.machine.system import System
from minprov.machine.tools import find_tool
from tests.image.recorded import make_tree, write_entry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a fix needs root")

SERIAL = "console=ttyS0,115200n8 earlyprintk=ttyS0"
OPENSUSE = """\
Defaults env_reset
Defaults targetpw   # ask for the password of the target user i.e. root
ALL   ALL=(ALL) ALL   # WARNING! Only use this together with 'Defaults targetpw'!
root ALL=(ALL:ALL) ALL
@includedir /etc/sudoers.d
"""


def fix(root: Path, capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command on a tree."""
    status = run(["check", "--root", str(root), "--fix", name, "--json", *arguments])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, document


def write(root: Path, path: str, text: str) -> Path:
    """Write a file of the tree."""
    write_entry(root, path, text)
    return root / path.split(" ")[0].lstrip("/")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"console=tty1 {SERIAL}"),
        ("ro quiet", f"ro quiet console=tty1 {SERIAL}"),
        ("console=ttyS0 console=tty0", f"console=tty0 {SERIAL}"),
        ("console=tty0 earlyprintk=vga", "console=tty0 earlyprintk=vga console=ttyS0,115200n8"),
        ("console=tty0  console=ttyS0", "console=tty0  console=ttyS0"),
        ("console=hvc0", f"console=hvc0 {SERIAL}"),
    ],
)
def test_the_serial_console_becomes_the_last_one(before: str, after: str) -> None:
    assert with_serial_console(before, X86) == after
    assert with_serial_console(after, X86) == after
    assert with_serial_console("ro", ARM) == "ro console=tty1 console=ttyAMA0"


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        (
            "/etc/default/grub",
            'GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX_DEFAULT="quiet console=tty0"\nGRUB_CMDLINE_LINUX=""  # all\n',
            f'GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="console=tty0 {SERIAL}" # all\n',
        ),
        (
            "/etc/default/grub.d/50-cloudimg.cfg",
            "GRUB_CMDLINE_LINUX_DEFAULT='console=tty1'\n",
            f"GRUB_CMDLINE_LINUX_DEFAULT='console=tty1 {SERIAL}'\n",
        ),
        ("/etc/default/grub", "GRUB_CMDLINE_LINUX=quiet", f'GRUB_CMDLINE_LINUX="quiet console=tty1 {SERIAL}"'),
        (
            "/boot/loader/entries/a.conf",
            "title A\nlinux /vmlinuz\noptions root=LABEL=x\noptions quiet\n",
            f"title A\nlinux /vmlinuz\noptions root=LABEL=x\noptions quiet console=tty1 {SERIAL}\n",
        ),
        (
            "/boot/extlinux.conf",
            "LABEL a\n  LINUX /vmlinuz\n  APPEND root=/dev/x quiet\n",
            f"LABEL a\n  LINUX /vmlinuz\n  APPEND root=/dev/x quiet console=tty1 {SERIAL}\n",
        ),
        (
            "/etc/update-extlinux.conf",
            'default_kernel_opts="quiet"\nmodules=ext4\n',
            f'default_kernel_opts="quiet console=tty1 {SERIAL}"\nmodules=ext4\n',
        ),
        ("/etc/kernel/cmdline", "root=LABEL=x rw\n", f"root=LABEL=x rw console=tty1 {SERIAL}\n"),
    ],
)
def test_console(path: str, before: str, after: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    if "loader" in path:  # GRUB's configuration comes before it
        (tmp_path / "boot/grub/grub.cfg").unlink()
    file = write(tmp_path, path, before)
    file.chmod(0o640)
    status, planned = fix(tmp_path, capsys, "console", "--dry-run")
    assert (status, planned["outcome"], file.read_text()) == (0, "planned", before)
    status, done = fix(tmp_path, capsys, "console")
    assert (status, done["outcome"], done["findings"]) == (0, "fixed", [])
    assert done["steps"] == planned["steps"]
    assert (file.read_text(), oct(file.stat().st_mode & 0o777)) == (after, "0o640")
    assert Path(f"{file}{BACKUP}").read_text() == before
    assert fix(tmp_path, capsys, "console")[1]["outcome"] == "nothing to do"


@pytest.mark.parametrize(
    "text",
    [
        'GRUB_CMDLINE_LINUX="a \\\nb"\n',
        'GRUB_CMDLINE_LINUX="$(cat /x)"" b"\n',
        b"# \xe9\nGRUB_CMDLINE_LINUX=quiet\n",
    ],
)
def test_what_is_not_understood_stays_as_it_is(
    text: str | bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree("debian", tmp_path)
    file = write(tmp_path, "/etc/default/grub", "")
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = file.read_bytes()
    status, document = fix(tmp_path, capsys, "console")
    assert (status, document["outcome"], document["steps"]) == (1, "not fixed", [])
    assert document["findings"][0]["fix"]
    assert file.read_bytes() == before


def test_on_a_tree_the_configuration_that_grub_reads_is_left_to_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree("debian", tmp_path)
    grub = tmp_path / "boot/grub/grub.cfg"
    grub.write_text(grub.read_text().replace("console=tty1 console=ttyS0,115200n8", "console=tty0"))
    write(tmp_path, "/etc/default/grub", 'GRUB_CMDLINE_LINUX=""\nGRUB_CMDLINE_LINUX_DEFAULT="console=tty0"\n')
    status, document = fix(tmp_path, capsys, "console")
    assert (status, document["outcome"]) == (1, "not fixed")
    assert {finding["file"] for finding in document["findings"]} == {"/boot/grub/grub.cfg"}
    assert [step["action"] for step in document["steps"]] == ["write"]


@pytest.mark.parametrize(
    ("place", "path", "contents"),
    [
        ("/etc/initramfs-tools/", "/etc/initramfs-tools/modules", "hv_vmbus\nhv_storvsc\nhv_netvsc\n"),
        ("/etc/dracut.conf.d/", "/etc/dracut.conf.d/hyperv.conf", 'add_drivers+=" hv_vmbus hv_storvsc hv_netvsc "\n'),
    ],
)
def test_initramfs(place: str, path: str, contents: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    write(tmp_path, "/boot/initrd.img-6.1.0-27-cloud-amd64 initramfs zstd", "usr/lib/modules/6.1/virtio_blk.ko.xz")
    write(tmp_path, place, "")
    if place != "/etc/initramfs-tools/":
        assert not (tmp_path / "etc/initramfs-tools").exists()
    status, document = fix(tmp_path, capsys, "initramfs-hyperv")
    # The initramfs itself is made on the system.
    assert (status, document["outcome"]) == (1, "not fixed")
    assert (tmp_path / path.lstrip("/")).read_text() == contents


def test_nic_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    rules = write(
        tmp_path, "/etc/udev/rules.d/70-persistent-net.rules", 'ATTR{address}=="52:54:00:12:34:56", NAME="eth0"\n'
    )
    link = write(tmp_path, "/etc/systemd/network/10-nic.link", "[Match]\nMACAddress=52:54:00:12:34:56\n")
    status, document = fix(tmp_path, capsys, "nic-names")
    assert (status, document["outcome"]) == (0, "fixed")
    for file in (rules, link):
        assert not file.exists()
        assert Path(f"{file}{BACKUP}").exists()


@pytest.mark.parametrize(
    ("like", "written"),
    [
        ("debian", "/etc/systemd/network/01-minprov-vf.network"),
        ("rhel9", "/etc/NetworkManager/conf.d/68-minprov-vf.conf"),
    ],
)
def test_vf(like: str, written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree(like, tmp_path)
    for library in tmp_path.glob("usr/lib/**/libsystemd-shared-*.so"):
        library.rename(library.with_name("libsystemd-shared-252.so"))
    for rule in tmp_path.glob("usr/lib/udev/rules.d/*sriov*"):
        rule.unlink()
    status, document = fix(tmp_path, capsys, "vf")
    assert (status, document["outcome"]) == (0, "fixed")
    assert [step["target"] for step in document["steps"]] == [written]
    assert (tmp_path / written.lstrip("/")).stat().st_mode & 0o777 == 0o644


def test_a_rule_for_one_manager_is_none_for_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    for library in tmp_path.glob("usr/lib/**/libsystemd-shared-*.so"):
        library.rename(library.with_name("libsystemd-shared-252.so"))
    path, contents = VF_FILES["NetworkManager"]
    write(tmp_path, path, contents)
    status, document = fix(tmp_path, capsys, "vf")
    assert (status, [step["target"] for step in document["steps"]]) == (0, [VF_FILES["systemd-networkd"][0]])


def test_a_nic_of_the_machines_own_is_not_left_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree("debian", tmp_path)
    monkeypatch.setattr("minprov.image.fixes.files.find_lone_vf", lambda: "eth7")
    with pytest.raises(ProvisioningError, match="eth7"):
        list(plan_vf(Subject(Tree(str(tmp_path))), System()))
    assert list(plan_vf(Subject(Tree(str(tmp_path))), System(str(tmp_path)))) == []


def test_sudo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    file = write(tmp_path, "/etc/sudoers 0440", OPENSUSE)
    status, document = fix(tmp_path, capsys, "sudo-password")
    assert (status, document["outcome"]) == (0, "fixed")
    lines = OPENSUSE.splitlines()
    assert file.read_text().splitlines() == [lines[0], f"# {lines[1]}", f"# {lines[2]}", *lines[3:]]
    assert file.stat().st_mode & 0o777 == 0o440
    if visudo := find_tool("visudo"):
        subprocess.run([visudo, "--check", "--file", str(file)], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("rule", ["ALL ALL=(ALL) NOPASSWD: ALL", "ALL ALL = /usr/bin/x", "ALL \\\n ALL=(ALL) ALL"])
def test_without_targetpw_a_rule_for_everybody_would_make_everybody_root(
    rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree("debian", tmp_path)
    file = write(tmp_path, "/etc/sudoers.d/10-site 0440", f"Defaults targetpw\n{rule}\n")
    status, document = fix(tmp_path, capsys, "sudo-password")
    assert (status, document["outcome"], document["steps"]) == (1, "not fixed", [])
    assert file.read_text() == f"Defaults targetpw\n{rule}\n"


@pytest.mark.parametrize("name", [fix.id for fix in FIXES])
def test_the_help_names_each_fix(name: str) -> None:
    [flag] = (action for action in build_parser()._actions if action.dest == "fix")
    assert name in str(flag.help)


@pytest.mark.parametrize("name", [fix.id for fix in FIXES])
def test_a_good_image_stays_as_it_is(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    status, document = fix(tmp_path, capsys, name)
    assert (status, document["outcome"], document["steps"]) == (0, "nothing to do", [])


@pytest.mark.parametrize(
    "arguments", [["--fix", "dhcp"], ["--dry-run"], ["--fix", "console", "/nonexistent.img"], ["--fix", "nothing"]]
)
def test_wrong_use(arguments: list[str]) -> None:
    assert run(["check", *arguments]) == Reason.USAGE.exit_status
