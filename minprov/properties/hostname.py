"""The hostname: the running kernel's and the one for the next boot, hostname(5)."""

from __future__ import annotations

import socket

from minprov.actions import SetHostname
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System
from minprov.properties.inspection import Inspection
from minprov.properties.published_hostname import note_running_clients

FILE = "/etc/hostname"


async def inspect(system: System, action: SetHostname) -> Inspection:
    """Compare the kernel's hostname and the file's."""
    stored = system.read_text(FILE).strip()
    names = {stored, socket.gethostname()} if system.live else {stored}
    present = " / ".join(sorted(name or "(none)" for name in names))
    holds = names == {action.hostname}
    return Inspection(holds, present if holds else f"{present}, to be {action.hostname}")


async def converge(system: System, action: SetHostname) -> None:
    """Write the file, then name the kernel."""
    await system.replace(FILE, f"{action.hostname}\n".encode(), mode=0o644)
    if system.live and socket.gethostname() != action.hostname:
        try:
            socket.sethostname(action.hostname)
        except OSError as error:
            raise ProvisioningError(Reason.NOT_PERMITTED, call="sethostname", detail=error.strerror) from error
        await note_running_clients(system)
