"""The SSH server's own keys, which a generalised image does not carry."""

from __future__ import annotations

import os
from collections.abc import Callable

from minprov.actions import EnsureHostKeys
from minprov.errors import ProvisioningError, Reason
from minprov.machine.blocking import in_thread
from minprov.machine.files import file_error, sync
from minprov.machine.system import System
from minprov.machine.tools import find_tool, run_tool
from minprov.properties.inspection import Inspection

DIRECTORY = "/etc/ssh"
PREFIX = "ssh_host_"


async def inspect(system: System, action: EnsureHostKeys) -> Inspection:
    """Look for any private host key."""
    if system.own_tool("sshd") is None:
        return Inspection(True, "sshd is not installed", verified=False)
    keys = [path for path in _files(system) if path.endswith("_key")]
    if keys and system.exists(action.journal):
        return Inspection(False, "left unfinished by a run that was killed")
    return Inspection(bool(keys), f"{len(keys)} keys" if keys else "no keys")


async def converge(system: System, action: EnsureHostKeys) -> None:
    """Have ssh-keygen make one key of each default type, all anew if it was killed at that."""
    keygen = find_tool("ssh-keygen")
    if keygen is None:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="ssh-keygen")
    if system.exists(action.journal):
        await in_thread(_for_each, system, os.unlink)
    else:
        await system.replace(action.journal, b"", mode=0o600)
    await run_tool([keygen, "-A", *([] if system.live else ["-f", system.root])])
    await in_thread(_for_each, system, sync)  # which ssh-keygen leaves to chance
    await system.remove(action.journal)


def _files(system: System) -> list[str]:
    directory = system.path(DIRECTORY)
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return [f"{directory}/{name}" for name in names if name.startswith(PREFIX)]


def _for_each(system: System, function: Callable[[str], None]) -> None:
    try:
        for path in _files(system):
            function(path)
        sync(system.path(DIRECTORY))
    except OSError as error:
        raise file_error(error, DIRECTORY) from error
