"""The HostGAPlugin, port 32526 of the WireServer's address: request -> reply.

Only waagent speaks to it, and it is here to be found and to decline: no vmSettings (404 means "use the goal state"), no
artifacts. (Azure/WALinuxAgent: azurelinuxagent/common/protocol/hostplugin.py.)
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .exchange import Reply

if TYPE_CHECKING:
    from .exchange import Request
    from .vm import VirtualMachine

PORT = 32526

_API_VERSIONS = ("2015-09-01",)
_JSON = "application/json; charset=utf-8"


_METHODS = {
    "host-plugin-versions": "GET",
    "host-plugin-health": "GET",
    "host-plugin-status": "PUT",
    "host-plugin-log": "PUT",
}


def endpoint(request: Request) -> str | None:
    """Return the name of the endpoint a request is for, `None` if there is none."""
    return {
        "/versions": "host-plugin-versions",
        "/health": "host-plugin-health",
        "/status": "host-plugin-status",
        "/vmAgentLog": "host-plugin-log",
        "/vmSettings": "vm-settings",
        "/extensionArtifact": "extension-artifact",
    }.get(request.path)


def answer(_vm: VirtualMachine, request: Request) -> Reply:
    """Judge a request and answer it as the HostGAPlugin of a host without vmSettings does."""
    name = endpoint(request)
    method = _METHODS.get(name or "")
    if method is None:
        return Reply(status=404, content_type=_JSON, refusal="not offered by this host")
    if request.method != method:
        return Reply(status=405, content_type=_JSON, refusal=f"{name} takes {method}, not {request.method}")
    versions = json.dumps(_API_VERSIONS).encode() if name == "host-plugin-versions" else b""
    return Reply(content_type=_JSON, body=versions)
