"""The guest proxy agent of the metadata security protocol, which some VMs are created with.

It has the kernel redirect every connection to the platform to itself and signs what goes by it; the platform may refuse
what leaves before that: https://learn.microsoft.com/azure/virtual-machines/metadata-security-protocol/overview.
"""

from __future__ import annotations

from minprov.machine.tools import find_tool

AGENT = "azure-proxy-agent"


def find_proxy_agent() -> str | None:
    """Return the path of the agent on this machine, or None."""
    return find_tool(AGENT)
