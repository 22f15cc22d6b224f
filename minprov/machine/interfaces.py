"""What is wrong with the names, addresses and routes of the NICs; looked at by every run, Ready or not.

With accelerated networking a VF (drivers mlx4_core, mlx5_core, mana) with the same hardware address stands beside the
NIC (hv_netvsc), which uses it. A VF with an address of its own gets packets that are not for it.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

from minprov.definitions import NamedTuple

VF_DRIVERS = frozenset({"mlx4_core", "mlx5_core", "mana"})
SIOCGIFADDR = 0x8915  # linux/sockios.h
DEFAULT, WIRESERVER = "00000000", "10813FA8"  # destinations as /proc/net/route has them
# In their order: systemd.link(5), nm-settings-keyfile(5), ifcfg, udev(7).
BY_ADDRESS = (
    r"""(?im)(?:^[ \t]*(?:(?:Permanent)?MACAddress|mac-address|HWADDR)[ \t]*=|ATTRS?\{address\}==)"""
    r"""[ \t]*["']?[ \t]*([0-9a-f:. \t-]+)"""
)
NAMING = (
    ("/etc/udev/rules.d", "", "-persistent-net.rules"),
    ("/etc/systemd/network", "", ".link"),
    ("/etc/NetworkManager/system-connections", "", ""),
    ("/etc/sysconfig/network-scripts", "ifcfg-", ""),
)
"""Directories, and how the names begin and end of the files in them that name NICs."""


class Interface(NamedTuple):
    """A NIC that a driver has."""

    name: str
    driver: str
    address: str


def find_faults(
    root: str = "", routes: str = "/proc/net/route", address_of: Callable[[str], str | None] | None = None
) -> Iterator[str]:
    """Yield a sentence for each thing that a reader of the result should know; what cannot be read says nothing."""
    interfaces = list(_interfaces(f"{root}/sys/class/net"))
    for interface in interfaces:
        if not _is_vf(interface, interfaces):
            continue
        if address := (address_of or ipv4_address)(interface.name):
            vf = f"{interface.name} is a VF of accelerated networking ({interface.driver})"
            yield f"{vf} and has the address {address}: the network manager is to leave it alone"
    present = {interface.address for interface in interfaces}
    for directory, start, end in NAMING:
        yield from _foreign_names(root + directory, start, end, present) if present else ()
    links = _links(routes)
    if {DEFAULT, WIRESERVER} <= links.keys() and links[DEFAULT] != links[WIRESERVER]:
        yield f"the default route is by {links[DEFAULT]}, the platform by {links[WIRESERVER]}"


def find_lone_vf(root: str = "") -> str | None:
    """Return a NIC with a driver of VFs that is none: there is no other with its hardware address."""
    interfaces = list(_interfaces(f"{root}/sys/class/net"))
    alike = (found for found in interfaces if found.driver in VF_DRIVERS)
    return next((found.name for found in alike if not _is_vf(found, interfaces)), None)


def ipv4_address(name: str) -> str | None:
    """Return the address of an interface, netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked, suppress(OSError):
        answer = fcntl.ioctl(asked, SIOCGIFADDR, name.encode()[:15].ljust(40, b"\0"))
        return socket.inet_ntoa(answer[20:24])
    return None


def _interfaces(directory: str) -> Iterator[Interface]:
    for name in _names(directory):
        with suppress(OSError):
            driver = os.path.basename(os.readlink(f"{directory}/{name}/device/driver"))
            with open(f"{directory}/{name}/address", encoding="ascii", errors="replace") as stream:
                yield Interface(name, driver, stream.read(64).strip().lower())


def _is_vf(interface: Interface, interfaces: list[Interface]) -> bool:
    others = (other for other in interfaces if other.driver not in VF_DRIVERS)
    return interface.driver in VF_DRIVERS and any(other.address == interface.address for other in others)


def _foreign_names(directory: str, start: str, end: str, present: set[str]) -> Iterator[str]:
    for name in _names(directory):
        if name.startswith(start) and name.endswith(end):
            with suppress(OSError):
                # A FIFO, opened so, has no writer to wait for.
                descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                with open(descriptor, encoding="utf-8", errors="replace") as stream:
                    listed = re.findall(BY_ADDRESS, stream.read(1 << 16))
                wanted = {item.replace("-", ":").lower() for items in listed for item in items.split()}
                if wanted and not wanted & present:
                    yield f"{directory}/{name} names a NIC by a hardware address that none has: {min(wanted)}"


def _links(routes: str) -> dict[str, str]:
    """Return the link of each destination, the first one as the kernel lists them."""
    links: dict[str, str] = {}
    with suppress(OSError), open(routes, encoding="ascii", errors="replace") as lines:
        for line in lines:
            link, destination, *_ = [*line.split(), "", ""]
            links.setdefault(destination, link)
    return links


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
