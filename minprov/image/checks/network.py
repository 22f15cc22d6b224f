"""Checks of the network: every new VM has another NIC, with another hardware address, and asks by DHCP."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from minprov.image.findings import Check, Found, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.subject import Subject

GENERIC = "https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic"
PERSISTENT_RULES = ("/etc/udev/rules.d/70-persistent-net.rules", "/etc/udev/rules.d/75-persistent-net-generator.rules")
GENERATORS = (
    "/usr/lib/udev/rules.d/75-persistent-net-generator.rules",
    "/etc/udev/rules.d/85-persistent-net-cloud-init.rules",
)
LINKS = ("/etc/systemd/network/*.link", "/usr/lib/systemd/network/*.link")
UDEV_RULES = ("/etc/udev/rules.d/*.rules", "/usr/lib/udev/rules.d/*.rules", "/lib/udev/rules.d/*.rules")
VF_RULES = {
    "NetworkManager": ("/etc/NetworkManager/conf.d/*.conf", "/usr/lib/NetworkManager/conf.d/*.conf"),
    "systemd-networkd": ("/etc/systemd/network/*.network", "/usr/lib/systemd/network/*.network"),
}
"""Where each network manager may have a rule of its own, beside those of udev, which count for both."""
_VF = re.compile(r"\bmana\b|mlx5_core|AZURE_UNMANAGED_SRIOV|sriov", re.IGNORECASE)
NETWORKD_FIXED = 257

DHCP_FIX = {
    "debian": "printf '[Match]\\nType=ether\\n\\n[Network]\\nDHCP=yes\\n' >/etc/systemd/network/50-dhcp.network; "
    "systemctl enable systemd-networkd",
    "rhel": "systemctl enable NetworkManager, which asks by DHCP for each NIC without a connection; delete connections "
    "with method=manual and no-auto-default=*.",
    "suse": "printf 'BOOTPROTO=dhcp\\nSTARTMODE=auto\\n' >/etc/sysconfig/network/ifcfg-eth0; systemctl enable wicked",
    "alpine": "printf 'auto lo\\niface lo inet loopback\\nauto eth0\\niface eth0 inet dhcp\\n' "
    ">/etc/network/interfaces; rc-update add networking boot",
    "gentoo": "emerge net-misc/dhcpcd; rc-update add dhcpcd default",
    "other": "Enable a DHCP client for eth0: dhcpcd, udhcpc -i eth0, or systemd-networkd with DHCP=yes.",
}


def judge_dhcp(subject: Subject) -> Iterator[Found]:
    """Look for something that asks by DHCP at all."""
    networks = subject.networks
    if not networks:
        yield Found("no DHCP client is started, and no network manager")
    elif not any(network.dhcp for network in networks):
        for network in networks:
            yield Found(f"{network.manager} does not ask by DHCP", network.file)


def judge_names(subject: Subject) -> Iterator[Found]:
    """Look for a configuration that is for the NIC of the machine that built the image alone."""
    asking = [network for network in subject.networks if network.dhcp]
    good = any(network.is_for_nic for network in asking)
    for network in asking:
        if not network.is_for_nic:
            wanted = (
                f"the hardware address {network.mac}" if network.mac else f"a NIC called {', '.join(network.names)}"
            )
            what = f"{network.manager} is for {wanted}" + ("" if good else ", and nothing is for eth0")
            yield Found(what, network.file, severity=Severity.RISK if good else None)
    for path in subject.tree.glob(*PERSISTENT_RULES, *LINKS):
        for number, line in subject.tree.lines(path):
            if re.search(r"ATTR\{address\}==|^(Permanent)?MACAddress=", line):
                yield Found("a NIC's name is bound to its hardware address", path, number, line, Severity.RISK)
    for path in subject.tree.glob(*GENERATORS):
        if subject.tree.link(path) is None:
            yield Found("a NIC's name is going to be bound to its hardware address", path, severity=Severity.RISK)


def judge_vf(subject: Subject) -> Iterator[Found]:
    """Look for a rule that keeps the network manager off the second NIC of accelerated networking."""
    if managers := list(find_vf_managers(subject)):
        version = _networkd_version(subject) if "systemd-networkd" in managers else None
        named = " and ".join(managers) + (f" {version}" if version else "")
        yield Found(f"{named} would configure the VF of accelerated networking, too")


def find_vf_managers(subject: Subject) -> Iterator[str]:
    """Yield the network managers that are started and have no rule for the VF."""
    for manager, places in VF_RULES.items():
        if subject.services.starts(manager):
            leaves_it = manager == "systemd-networkd" and (_networkd_version(subject) or 0) >= NETWORKD_FIXED
            found = subject.tree.glob(*UDEV_RULES, *places)
            if not leaves_it and not any(_VF.search(path) or _VF.search(_text(subject, path)) for path in found):
                yield manager


def _text(subject: Subject, path: str) -> str:
    return subject.tree.text(path) or "" if subject.tree.is_file(path) else ""


def _networkd_version(subject: Subject) -> int | None:
    """Return systemd's version, which its private library has in its name."""
    pattern = "libsystemd-shared-*.so"
    directories = ("/usr/lib/systemd", "/usr/lib/*/systemd", "/usr/lib64/systemd", "/lib/systemd")
    for path in subject.tree.glob(*(f"{directory}/{pattern}" for directory in directories)):
        if found := re.search(r"shared-([0-9]{1,5})", path):
            return int(found[1])
    return None


CHECKS = (
    Check(
        "dhcp",
        Severity.FAILS,
        "a DHCP client that is started configures the first NIC; no static address",
        "Azure gives a VM its address by DHCP, and the routes to the platform with it.",
        GENERIC,
        judge_dhcp,
        DHCP_FIX,
    ),
    Check(
        "nic-names",
        Severity.FAILS,
        "no hardware address and no name of the builder's NIC decides on the network",
        "Each VM's NIC has a hardware address of its own and is called eth0: what is for another one is never applied.",
        f"{GENERIC}; azure-vm-utils#106",
        judge_names,
        "Delete the file, or let it match by type or as eth0; rm -f /etc/udev/rules.d/7?-persistent-net*.rules.",
    ),
    Check(
        "vf",
        Severity.RISK,
        "NetworkManager, or networkd before 257, has a rule for the VF of accelerated networking",
        "The VF has the hardware address of the NIC that it belongs to: with an address of its own, packets get lost.",
        "azure-vm-utils: 10-azure-unmanaged-sriov.rules; systemd#36997",
        judge_vf,
        "minprov check --fix vf, or install azure-vm-utils.",
    ),
)
