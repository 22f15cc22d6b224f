"""Fixes that are a few files: an initramfs' drivers, rules for NICs, other accounts' passwords in sudo."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.formats import sudoers
from minprov.image.checks.network import find_vf_managers
from minprov.image.fixes.steps import Act, Step, run_step
from minprov.machine.interfaces import find_lone_vf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.subject import Subject
    from minprov.machine.system import System

DRIVERS = ("hv_vmbus", "hv_storvsc", "hv_netvsc")
INITRAMFS_TOOLS, DRACUT = "/etc/initramfs-tools/modules", "/etc/dracut.conf.d/hyperv.conf"
DRACUT_PLACES = ("/etc/dracut.conf.d", "/usr/lib/dracut")
BINDS = re.compile(r"ATTR\{address\}==|^(Permanent)?MACAddress=")
NAMING = ("/etc/udev/rules.d/7?-persistent-net*.rules", "/etc/systemd/network/*.link")
GENERATOR = "/etc/udev/rules.d/85-persistent-net-cloud-init.rules"
VF_FILES = {
    "NetworkManager": (
        "/etc/NetworkManager/conf.d/68-minprov-vf.conf",
        """\
# Leaves the VF of accelerated networking to hv_netvsc, for NetworkManager, whatever udev says. The driver is the one
# that ethtool(8) shows, which for mlx4_core is mlx4_en.
[keyfile]
unmanaged-devices+=driver:mlx4_core;driver:mlx4_en;driver:mlx5_core;driver:mana
""",
    ),
    "systemd-networkd": (
        "/etc/systemd/network/01-minprov-vf.network",
        """\
# Leaves the VF of accelerated networking to hv_netvsc, for systemd-networkd of any version. The driver is the one that
# ethtool(8) shows, which for mlx4_core is mlx4_en.
[Match]
Driver=mlx4_core mlx4_en mlx5_core mana

[Link]
Unmanaged=yes
""",
    ),
}
"""By network manager. They are in units/network, too, for who has no use for this program."""
SETTINGS = ("targetpw", "rootpw", "runaspw")
EVERYBODY = re.compile(r"ALL\s+ALL\s*=\s*(\(\s*ALL\s*(:\s*ALL\s*)?\)\s*)?(PASSWD:\s*)?ALL\s*(#.*)?")
"""The rule that asks whoever runs sudo for the password of root: without targetpw it makes everybody root."""


def plan_initramfs(subject: Subject, system: System) -> Iterator[Step]:
    """Yield the drivers' file and the tool that makes the initramfs."""
    tree = subject.tree
    if tree.is_directory("/etc/initramfs-tools"):
        text = tree.text(INITRAMFS_TOOLS) or ""
        named = {line.split()[0] for _, line in tree.lines(INITRAMFS_TOOLS)}
        begun = text if not text or text.endswith("\n") else f"{text}\n"
        added = "".join(f"{driver}\n" for driver in DRIVERS if driver not in named)
        if added:
            yield Step(Act.WRITE, tree.target(INITRAMFS_TOOLS), "names the drivers", (begun + added).encode())
        yield from run_step(system, "makes each initramfs anew", ("update-initramfs", "-u", "-k", "all"))
    elif any(tree.is_directory(path) for path in DRACUT_PLACES):
        contents = f'add_drivers+=" {" ".join(DRIVERS)} "\n'
        if tree.text(DRACUT) != contents:
            yield Step(Act.WRITE, DRACUT, "names the drivers", contents.encode())
        yield from run_step(system, "makes each initramfs anew", ("dracut", "--force", "--regenerate-all"))


def plan_nic_names(subject: Subject, system: System) -> Iterator[Step]:
    """Yield the files that bind a NIC's name to its hardware address."""
    tree = subject.tree
    for path in tree.glob(*NAMING):
        if tree.link(path) is None and any(BINDS.search(line) for _, line in tree.lines(path)):
            yield Step(Act.MOVE_ASIDE, path, "binds a NIC's name to its hardware address")
    if tree.is_file(GENERATOR) and tree.link(GENERATOR) is None:
        yield Step(Act.MOVE_ASIDE, GENERATOR, "would bind NICs' names")


def plan_vf(subject: Subject, system: System) -> Iterator[Step]:
    """Yield the file that has each network manager leave the VF alone.

    Raises:
        ProvisioningError: USAGE, where this machine has such a NIC that is nobody's VF, and would lose its network.

    """
    if system.live and (lone := find_lone_vf()):
        detail = f"nothing fixes vf here: {lone} is a NIC of its own, and would be left without a configuration"
        raise ProvisioningError(Reason.USAGE, detail=detail)
    for manager in find_vf_managers(subject):
        path, contents = VF_FILES[manager]
        yield Step(Act.WRITE, subject.tree.target(path), f"has {manager} leave the VF alone", contents.encode())


def plan_sudo(subject: Subject, system: System) -> Iterator[Step]:
    """Yield the files of sudoers without lines that ask for another account's password; none if one is not understood.

    With targetpw goes the rule for everybody, in the same step where they are in one file, and else before it.
    """
    tree = subject.tree
    lines = sudoers.read_lines(tree.text, tree.names)
    rules = [line for line in lines if EVERYBODY.fullmatch(line.text)]
    settings = [line for name in SETTINGS for line in lines if _sets(line, name)]
    others = [line for line in lines if re.match(r"ALL\s", line.text) and line not in rules]
    if not settings or others or any(not line.file.startswith("/etc/") for line in (*rules, *settings)):
        return
    files = dict.fromkeys(line.file for line in (*rules, *settings))
    for path in files:
        written = (tree.text(path) or "").split("\n")
        for line in (*rules, *settings):
            if line.file == path:
                if written[line.number - 1].strip() != line.text:
                    return  # goes on in another line
                written[line.number - 1] = f"# {line.text}"
        yield Step(Act.WRITE, tree.target(path), "asks for a password that nobody has", "\n".join(written).encode())


def _sets(line: sudoers.Line, name: str) -> bool:
    """Tell whether a line does nothing but ask for another account's password."""
    return re.fullmatch(rf"Defaults\s+{name}\s*(#.*)?", line.text) is not None
