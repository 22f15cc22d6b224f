"""The guest proxy agent, which has to be ready before anything is reported."""

from __future__ import annotations

from minprov.actions import CheckProxyAgent
from minprov.errors import ProvisioningError, Reason
from minprov.limits import PROXY_AGENT_SLACK, PROXY_AGENT_WAIT
from minprov.machine.proxy_agent import find_proxy_agent
from minprov.machine.system import System
from minprov.machine.tools import run_tool
from minprov.properties.inspection import Inspection


async def inspect(system: System, action: CheckProxyAgent) -> Inspection:
    """Ask the agent whether it is ready."""
    agent = find_proxy_agent()
    if agent is None:
        return Inspection(False, "not installed")
    try:
        await run_tool([agent, "--status"])
    except ProvisioningError:
        return Inspection(False, "not ready")
    return Inspection(True, "ready")


async def converge(system: System, action: CheckProxyAgent) -> None:
    """Wait until the agent says that it is ready."""
    agent = find_proxy_agent()
    if agent is None:
        raise ProvisioningError(Reason.PROXY_AGENT_NOT_FOUND)
    try:
        await run_tool([agent, "--status", "--wait", str(PROXY_AGENT_WAIT)], limit=PROXY_AGENT_WAIT + PROXY_AGENT_SLACK)
    except ProvisioningError as error:
        raise ProvisioningError(Reason.PROXY_AGENT_STATUS, **error.data) from error
