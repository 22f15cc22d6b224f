"""The hostname: the running kernel's and the one for the next boot, hostname(5).

An image may have its own name in hosts(5), as Debian's has for 127.0.1.1. Where no server of the network knows the VM
that line is all that resolves its name, without which sudo waits and complains: so it gets the new name. It is changed
first: once the hostname is, nobody knows the old one.
"""

from __future__ import annotations

import logging
import re
import socket

from minprov.actions import SetHostname
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System
from minprov.properties.inspection import Inspection
from minprov.properties.published_hostname import note_running_clients

logger = logging.getLogger(__name__)

FILE, HOSTS = "/etc/hostname", "/etc/hosts"


async def inspect(system: System, action: SetHostname) -> Inspection:
    """Compare the kernel's hostname and the file's."""
    stored = system.read_text(FILE).strip()
    names = {stored, socket.gethostname()} if system.live else {stored}
    present = " / ".join(sorted(name or "(none)" for name in names))
    holds = names == {action.hostname}
    return Inspection(holds, present if holds else f"{present}, to be {action.hostname}")


async def converge(system: System, action: SetHostname) -> None:
    """Write the files, then name the kernel."""
    if action.hosts_file:
        await _rename_in_hosts(system, action.hostname)
    await system.replace(FILE, f"{action.hostname}\n".encode(), mode=0o644)
    if system.live and socket.gethostname() != action.hostname:
        try:
            socket.sethostname(action.hostname)
        except OSError as error:
            raise ProvisioningError(Reason.NOT_PERMITTED, call="sethostname", detail=error.strerror) from error
        await note_running_clients(system)


def renamed(hosts: str, old: str, new: str) -> str:
    """Return the hosts file with the new name for the old one where it stands for a loopback address, domains kept."""
    name = re.compile(rf"(?<=[ \t]){re.escape(old)}(?=[ \t.\n]|$)")
    lines = hosts.splitlines(keepends=True)
    return "".join(_renamed_line(line, name, new) if _is_loopback(line) else line for line in lines)


def _is_loopback(line: str) -> bool:
    return line.lstrip().startswith(("127.", "::1 ", "::1\t"))


def _renamed_line(line: str, name: re.Pattern[str], new: str) -> str:
    entry, mark, comment = line.partition("#")
    return name.sub(new, entry) + mark + comment


async def _rename_in_hosts(system: System, hostname: str) -> None:
    old_names = {system.read_text(FILE).strip(), socket.gethostname() if system.live else ""} - {hostname, ""}
    hosts = changed = system.read_text(HOSTS)
    for old in sorted(old_names):
        if old in hosts and not old.startswith("localhost"):
            changed = renamed(changed, old, hostname)
    if changed == hosts:
        return
    try:
        await system.replace(HOSTS, changed.encode(errors="surrogateescape"), mode=0o644)
    except ProvisioningError as error:
        logger.warning("the old name stays in the hosts file: %s", error)
