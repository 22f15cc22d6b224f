"""The SSH server's own keys, which a generalised image does not carry."""

from __future__ import annotations

import os

from minprov.actions import EnsureHostKeys
from minprov.errors import ProvisioningError, Reason
from minprov.properties.inspection import Inspection
from minprov.system import System

DIRECTORY = "/etc/ssh"


async def inspect(system: System, action: EnsureHostKeys) -> Inspection:
    """Look for any private host key."""
    del action
    if system.own_tool("sshd") is None:
        return Inspection(True, "sshd is not installed")
    names = os.listdir(system.path(DIRECTORY)) if system.exists(DIRECTORY) else []
    keys = [name for name in names if name.startswith("ssh_host_") and name.endswith("_key")]
    return Inspection(bool(keys), f"{len(keys)} keys" if keys else "no keys")


async def converge(system: System, action: EnsureHostKeys) -> None:
    """Have ssh-keygen make one key of each default type."""
    keygen = system.find("ssh-keygen")
    if keygen is None:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="ssh-keygen")
    await system.run([keygen, "-A", *([] if system.live else ["-f", system.root])])
