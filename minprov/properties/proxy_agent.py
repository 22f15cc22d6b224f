"""The guest proxy agent of the metadata security protocol, which some VMs are created with.

https://learn.microsoft.com/azure/virtual-machines/metadata-security-protocol/overview; the wait is cloud-init's, see
its sources/DataSourceAzure.py.
"""

from __future__ import annotations

from minprov.actions import CheckProxyAgent
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System
from minprov.machine.tools import find_tool, run_tool
from minprov.properties.inspection import Inspection

AGENT = "azure-proxy-agent"
WAIT = 120  # seconds


async def inspect(system: System, action: CheckProxyAgent) -> Inspection:
    """Ask the agent whether it is ready."""
    agent = find_tool(AGENT)
    if agent is None:
        return Inspection(False, "not installed")
    try:
        await run_tool([agent, "--status"])
    except ProvisioningError:
        return Inspection(False, "not ready")
    return Inspection(True, "ready")


async def converge(system: System, action: CheckProxyAgent) -> None:
    """Wait until the agent says that it is ready."""
    agent = find_tool(AGENT)
    if agent is None:
        raise ProvisioningError(Reason.PROXY_AGENT_NOT_FOUND)
    try:
        await run_tool([agent, "--status", "--wait", str(WAIT)], limit=WAIT + 10)
    except ProvisioningError as error:
        raise ProvisioningError(Reason.PROXY_AGENT_STATUS, **error.data) from error
