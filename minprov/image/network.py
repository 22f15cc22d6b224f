"""How the first NIC gets its address, by whichever network manager is started.

Only what decides on Azure is read of each: whether it asks by DHCP, for which NIC, by name or by hardware address. The
NIC of a VM is ``eth0``: hv_netvsc's devices have no slot or path for systemd to name them by
(systemd.net-naming-scheme(7)).
"""

from __future__ import annotations

import configparser
import fnmatch
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.image.family import parse_assignments

if TYPE_CHECKING:
    from minprov.image.services import Services
    from minprov.image.tree import Tree

NIC = "eth0"
DRIVER = "hv_netvsc"
NETWORKD = ("/etc/systemd/network/*.network", "/usr/lib/systemd/network/*.network", "/lib/systemd/network/*.network")
KEYFILES = ("/etc/NetworkManager/system-connections/*", "/usr/lib/NetworkManager/system-connections/*")
IFCFG = ("/etc/sysconfig/network-scripts/ifcfg-*", "/etc/sysconfig/network/ifcfg-*")
INTERFACES = ("/etc/network/interfaces", "/etc/network/interfaces.d/*")
NETPLAN = ("/lib/netplan/*.yaml", "/usr/lib/netplan/*.yaml", "/etc/netplan/*.yaml")
NETPLAN_PROGRAMS = ("/usr/sbin/netplan", "/usr/libexec/netplan", "/lib/netplan/generate")
DEMONS = ("dhcpcd", "dhclient", "connman", "dhcpcd@eth0")
"""DHCP clients that need no configuration."""
_TRUE = ("yes", "true", "ipv4", "both", "1", "on")


class Network(NamedTuple):
    """What configures a NIC."""

    manager: str
    file: str
    dhcp: bool
    names: tuple[str, ...] = ()
    """Patterns of the NICs that it is for; none: any."""
    mac: str | None = None

    @property
    def is_for_nic(self) -> bool:
        """Tell whether it is for the NIC of every new VM."""
        return self.mac is None and (not self.names or any(fnmatch.fnmatch(NIC, name) for name in self.names))


def read_networks(tree: Tree, services: Services) -> list[Network]:
    """Return what configures NICs, of the managers that are started."""
    found: list[Network] = []
    if any(tree.exists(path) for path in NETPLAN_PROGRAMS):
        found += [network for path in tree.glob(*NETPLAN) for network in _netplan(path, tree.text(path) or "")]
    if services.starts("systemd-networkd"):
        found += _networkd(tree)
    if services.starts("NetworkManager", "networkmanager"):
        found += _network_manager(tree)
    elif services.starts("network", "wicked", "wickedd"):
        found += [network for path in tree.glob(*IFCFG) if (network := _ifcfg(path, tree.text(path) or ""))]
    if services.starts("networking", "ifup@eth0", "net.eth0", "network") or services.runs_program("ifup"):
        found += [network for path in tree.glob(*INTERFACES) for network in _interfaces(path, tree.text(path) or "")]
    for demon in DEMONS:
        if place := services.starts(demon) or services.runs_program(demon):
            found.append(Network(demon, place, dhcp=True))
    if place := services.starts("net.eth0", "netifrc"):
        found.append(Network("netifrc", place, dhcp="dhcp" in (tree.text("/etc/conf.d/net") or "dhcp")))
    if place := services.runs_program("udhcpc"):
        found.append(Network("udhcpc", place, dhcp=True))
    return [network for network in found if network.names != ("lo",)]


def _networkd(tree: Tree) -> list[Network]:
    """Return what networkd's files are for, but for those that the file that applies first leaves nothing to do."""
    # Of files of one name the first directory counts; of those that match a NIC the first by name (systemd.network(5)).
    by_name = {path.rpartition("/")[2]: path for path in reversed(tree.glob(*NETWORKD))}
    found = []
    for name in sorted(by_name):
        sections = _sections(tree.text(by_name[name]) or "")
        match = sections.get("match", {})
        if not _is_ethernet(match):
            continue
        mac = match.get("macaddress") or match.get("permanentmacaddress")
        dhcp = sections.get("network", {}).get("dhcp", "").lower() in _TRUE
        network = Network("systemd-networkd", by_name[name], dhcp, _names(match.get("name", "")), mac)
        found.append(network)
        if network.is_for_nic:
            break
    return found


def _names(text: str) -> tuple[str, ...]:
    """Return the patterns of a [Match] section; with ``!`` before them it is for all other NICs."""
    patterns = tuple(text.removeprefix("!").split())
    if not text.startswith("!"):
        return patterns
    return (text,) if any(fnmatch.fnmatch(NIC, pattern) for pattern in patterns) else ()


def _is_ethernet(match: dict[str, str]) -> bool:
    """Tell whether a [Match] section can be for the NIC of a VM, whatever its name and address."""
    types, kinds = match.get("type", "ether").split(), match.get("kind", "!*").split()
    drivers = match.get("driver", DRIVER).split()
    return (
        not {"ether", "*"}.isdisjoint(types)
        and kinds == ["!*"]
        and any(fnmatch.fnmatch(DRIVER, driver) for driver in drivers)
        and match.get("virtualization", "yes") in ("yes", "vm", "microsoft")
    )


def _network_manager(tree: Tree) -> list[Network]:
    """Return what NetworkManager has connections for, and what it makes for a NIC without one."""
    connections = []
    for path in tree.glob(*KEYFILES):
        sections = _sections(tree.text(path) or "")
        connection = sections.get("connection", {})
        ethernet = sections.get("ethernet") or sections.get("802-3-ethernet") or {}
        is_ethernet = connection.get("type") in ("ethernet", "802-3-ethernet")
        if is_ethernet and connection.get("autoconnect", "true") != "false":
            dhcp = sections.get("ipv4", {}).get("method", "auto") == "auto"
            names = (connection["interface-name"],) if connection.get("interface-name") else ()
            connections.append(Network("NetworkManager", path, dhcp, names, ethernet.get("mac-address")))
    connections += [network for path in tree.glob(IFCFG[0]) if (network := _ifcfg(path, tree.text(path) or ""))]
    if any(network.is_for_nic for network in connections):
        return connections
    # Without a connection of its own a NIC gets one, which asks by DHCP (NetworkManager.conf(5), no-auto-default).
    configuration = tree.glob("/etc/NetworkManager/NetworkManager.conf", "/etc/NetworkManager/conf.d/*.conf")
    configuration += tree.glob("/usr/lib/NetworkManager/conf.d/*.conf")
    is_off = any(re.search(r"^no-auto-default\s*=\s*\*", tree.text(path) or "", re.MULTILINE) for path in configuration)
    if not is_off or not connections:
        connections.append(Network("NetworkManager", "/etc/NetworkManager/NetworkManager.conf", dhcp=not is_off))
    return connections


def _ifcfg(path: str, text: str) -> Network | None:
    values = parse_assignments(text)
    name = values.get("DEVICE") or path.rpartition("ifcfg-")[2]
    off = values.get("ONBOOT", "yes").lower() == "no" or values.get("STARTMODE", "auto").lower() in ("off", "manual")
    if name == "lo" or off or values.get("TYPE", "Ethernet") not in ("Ethernet", ""):
        return None
    dhcp = values.get("BOOTPROTO", "none").lower().startswith("dhcp")
    mac = values.get("HWADDR") or values.get("LLADDR")
    return Network("ifcfg", path, dhcp, (name,), mac)


def _interfaces(path: str, text: str) -> Iterator[Network]:
    started = {
        name
        for line in text.splitlines()
        if line.split()[:1] and line.split()[0] in ("auto", "allow-hotplug", "allow-auto")
        for name in line.split()[1:]
    }
    for found in re.finditer(r"^\s*iface\s+(\S+)(?:\s+inet\s+(\S+))?", text, re.MULTILINE):
        name, method = found[1], found[2]
        if name != "lo" and method and (name in started or any(fnmatch.fnmatch(name, one) for one in started)):
            yield Network("ifupdown", path, method == "dhcp", (name,))


def _netplan(path: str, text: str) -> Iterator[Network]:
    """Yield the ethernets of a netplan file; of YAML no more than its indentation is read."""
    current: dict[str, str] = {}
    section, depth = "", -1
    for line in [*text.splitlines(), "end:"]:
        found = re.match(r"(\s*)([\w.*\"'-]+):\s*(.*)", line.split(" #")[0])
        if not found or line.lstrip().startswith("#"):
            continue
        indent, key, value = len(found[1]), found[2].strip("\"'"), found[3].strip().strip("\"'")
        if indent <= depth and current:
            yield _netplan_network(path, current)
            current, depth = {}, -1
        if key in ("ethernets", "wifis", "bonds", "bridges", "vlans"):
            section = key
            section_depth = indent
        elif section == "ethernets" and depth < 0 and indent > section_depth and not value:
            current, depth = {"id": key}, indent
        elif current:
            current[key] = value


def _netplan_network(path: str, values: dict[str, str]) -> Network:
    has_match = "match" in values
    name = values.get("name") or (None if has_match else values["id"])
    names = (name,) if name else ()
    if values.get("driver") and values["driver"] != DRIVER:
        names = ("other",)
    return Network("netplan", path, values.get("dhcp4", "").lower() in _TRUE, names, values.get("macaddress"))


def _sections(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True, comment_prefixes=("#", ";"))
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    return {name.lower(): {key: value or "" for key, value in parser.items(name)} for name in parser.sections()}
