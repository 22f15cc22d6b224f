"""What makes a waagent that stays for extensions find the VM provisioned.

It provisions nothing, and reports nothing, if `provisioned` in its directory holds this VM's id as the firmware shows
it (azurelinuxagent/pa/provision/default.py); `Provisioning.Agent=disabled` alone makes it report Ready at every start.
VMAccess extensions read the ovf-env there (azure-linux-extensions#204), and the agent itself the host name that it
starts from (azurelinuxagent/ga/env.py). `disable_agent` ends it before extensions (azurelinuxagent/daemon/main.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.machine.identity import read_identity
from minprov.machine.provisioners import enabled_provisioners
from minprov.properties.inspection import Inspection

if TYPE_CHECKING:
    from minprov.actions import PrepareWaagent
    from minprov.machine.system import System

DIRECTORY = "/var/lib/waagent"
NAME = "waagent"


async def inspect(system: System, action: PrepareWaagent) -> Inspection:
    """Compare the files with what they should hold."""
    if NAME not in enabled_provisioners(system):
        return Inspection(True, "waagent is not enabled")
    lacking = [name for name, contents in _files(action).items() if system.read(f"{DIRECTORY}/{name}") != contents]
    return Inspection(not lacking, f"lacks {', '.join(lacking)}" if lacking else "finds the VM provisioned")


async def converge(system: System, action: PrepareWaagent) -> None:
    """Write the files, that by which it knows the VM last."""
    for name, contents in _files(action).items():
        await system.replace(f"{DIRECTORY}/{name}", contents, mode=0o600)
    os.chmod(system.path(DIRECTORY), 0o700)


def _files(action: PrepareWaagent) -> dict[str, bytes]:
    uuid = read_identity().dmi_uuid
    if uuid is None:
        raise ProvisioningError(Reason.READ_BACK, detail="the firmware shows no UUID, by which waagent knows the VM")
    files = {
        "ovf-env.xml": action.ovf_env,
        "published_hostname": None if action.hostname is None else action.hostname.encode(),
        "disable_agent": b"" if action.disable_agent else None,
        "provisioned": uuid.encode(),
    }
    return {name: contents for name, contents in files.items() if contents is not None}
