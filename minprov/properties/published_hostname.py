"""The hostname as the platform's DNS learns it: from the requests of the system's DHCP client.

A client that starts after the hostname was set sends it without being told, so mostly there is nothing to do. One that
had started before has sent the image's name, and is asked for another request. The link is never taken down:

    systemd-networkd   networkctl reconfigure, as renew repeats the old name; the address is gone for a moment
    NetworkManager     nmcli device modify: of what is active only, nothing is stored; the address stays
    wicked             ifup, without ifdown before; the address stays
    dhcpcd             dhcpcd --rebind, which signals it; the address stays. Where it has all links, none is named: else
                       its socket is used, which in 9.4.1 (Debian 12) takes the first command and no other
    dhclient           asks for the name with each request, but cannot be told to make one: a second one, on the same
                       lease and without a script that would touch the link, makes it and ends

Only the link to the platform is of interest to its DNS. Others, and other clients, send the name when they renew.
"""

import itertools
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress

from minprov.actions import PublishHostname
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import find_account
from minprov.limits import DHCP_CLIENT_LIMIT
from minprov.machine.files import is_roots_alone
from minprov.machine.processes import Process, find_processes
from minprov.machine.system import System
from minprov.machine.tools import run_tool
from minprov.properties.inspection import Inspection

NOTE = "/run/minprov/unpublished-hostname"
"""There while a DHCP client may have sent another name; gone with the next boot, whose first request is right."""
PID_FILE = "/run/minprov/dhclient.pid"
DHCPCD_PID_FILES = ("/run/dhcpcd/pid", "/run/dhcpcd.pid")
"""Of a dhcpcd that has all links, from version 9 on and before. One for a single link has a file of that name."""
SYSTEMD = "/run/systemd/system"  # sd_booted(3)
ROOTS_CLIENTS = ("NetworkManager", "dhclient", "dhcpcd", "wickedd")
NETWORKD, NETWORKD_USER = "systemd-networkd", "systemd-network"  # it gives up root when it starts
ROUTES = "/proc/net/route"
# Destinations as that file shows them: WireServer, and the default route.
DESTINATIONS = ("10813FA8", "00000000")


async def note_running_clients(system: System) -> None:
    """Note that a client which runs when the hostname is set may have sent another one."""
    if names := names_of_running_clients(system):
        await system.replace(NOTE, f"{names}\n".encode(), mode=0o600)


async def inspect(system: System, action: PublishHostname) -> Inspection:
    """Tell whether every DHCP client was started with this hostname or was asked to send it."""
    if not system.live:
        return Inspection(True, "left to the running system", verified=False)
    if socket.gethostname() != action.hostname:
        names = names_of_running_clients(system)
        return Inspection(not names, f"{names} runs already" if names else "no DHCP client has started")
    names = system.read_text(NOTE).strip()
    return Inspection(not names, f"{names} started with another name" if names else "sent with every request")


async def converge(system: System, action: PublishHostname) -> None:
    """Have the clients make another request, and wait for no answer."""
    link = find_link_to_platform()
    if link is None:
        raise ProvisioningError(Reason.READ_BACK, detail="no link has a route to the platform")
    for client in {client.name: client for client in _running_clients(system) if _serves(client, link)}.values():
        match client.name:
            case "dhclient":
                await _run_second_dhclient(system, client, link)
            case "dhcpcd":
                await _run_unsandboxed(system, dhcpcd_request(system, link))
            case name:
                await run_tool(request_by(name, link, action.hostname), limit=DHCP_CLIENT_LIMIT)
    await system.remove(NOTE)


def request_by(client: str, link: str, hostname: str) -> list[str]:
    """Return the command by which a client that runs makes another request."""
    match client:
        case "systemd-networkd":
            return ["networkctl", "reconfigure", link]
        case "NetworkManager":
            return ["nmcli", "device", "modify", link, "ipv4.dhcp-hostname", hostname]
        case _:
            return ["wicked", "ifup", link]  # WALinuxAgent: common/osutil/suse.py


def dhcpcd_request(system: System, link: str) -> list[str]:
    """Return the command by which dhcpcd gets SIGHUP, as WALinuxAgent sends it: common/osutil/alpine.py."""
    # Where none has all links, the command would start one if it named no link.
    has_all_links = any(map(system.exists, DHCPCD_PID_FILES))
    return ["dhcpcd", "--rebind", *([] if has_all_links else [link])]


def names_of_running_clients(system: System) -> str:
    """Return the names of the clients that can be asked, with commas between them."""
    return ", ".join(sorted({client.name for client in _running_clients(system)}))


def _serves(client: Process, link: str) -> bool:
    """Tell whether the client has this link; a dhclient has one alone."""
    return client.name != "dhclient" or client.argv[-1] == link


async def _run_second_dhclient(system: System, client: Process, link: str) -> None:
    """Make one request for the lease that the first one holds, as dhclient(8) does when it starts with a lease file."""
    lease_file = dict(itertools.pairwise(client.argv)).get("-lf")
    # It is written to.
    lease = ["-lf", lease_file] if lease_file and is_roots_alone(lease_file) else []
    await _run_unsandboxed(system, ["dhclient", "-4", "-1", "-sf", "/bin/true", *lease, "-pf", PID_FILE, link])
    if not system.exists(SYSTEMD):  # else it has ended with its unit
        with suppress(ValueError, ProcessLookupError):
            os.kill(int(system.read_text(PID_FILE)), signal.SIGTERM)


async def _run_unsandboxed(system: System, request: list[str]) -> None:
    """Run what needs raw sockets, or signals another user's process: the sandbox of minprov's unit denies both."""
    own_unit = ["systemd-run", "--quiet", "--wait", "--collect"] if system.exists(SYSTEMD) else []
    await run_tool([*own_unit, *request])


def find_link_to_platform(table: str = ROUTES) -> str | None:
    """Return the link that leads to WireServer."""
    with open(table, encoding="ascii") as lines:
        routes = [line.split()[:2] for line in lines]
    for wanted in DESTINATIONS:
        for link, destination in routes:
            if destination == wanted:
                return link
    return None


def _running_clients(system: System) -> Iterator[Process]:
    users = dict.fromkeys(ROOTS_CLIENTS, 0)
    if account := find_account(system.read_text("/etc/passwd"), NETWORKD_USER):
        users[NETWORKD] = account.uid
    return find_processes(users)
