"""The fingerprint of a host key for the platform: a property of the role, which the classic portal used to show.

The document and the form of the value are those of WALinuxAgent (common/protocol/wire.py, `_build_role_properties`;
pa/provision/default.py, `report_ssh_host_key_thumbprint`), which has not sent it since 2020. Whether the platform still
takes it is not known.
"""

from __future__ import annotations

import time
from xml.sax.saxutils import escape, quoteattr

from minprov.gather import open_transport
from minprov.limits import ROLE_PROPERTIES_LIMIT
from minprov.machine.system import System
from minprov.model import GoalState
from minprov.network.retry import AttemptFailed
from minprov.outcome.timeline import Timeline
from minprov.properties.host_key_fingerprints import read_fingerprints
from minprov.wire import HEALTH_HEADERS, WIRESERVER, fetch_goal_state

PATH = "/machine?comp=roleProperties"
PREFERRED = "ssh-rsa"  # waagent's Provisioning.SshHostKeyPairType


def find_value(system: System) -> str | None:
    """Return the fingerprint of the RSA key, or else of the first, without its colon."""
    fingerprints = sorted(read_fingerprints(system), key=lambda line: not line.startswith(PREFERRED))
    return fingerprints[0].split()[1].replace(":", "") if fingerprints else None


async def post(base_url: str, value: str) -> None:
    """Tell WireServer, once.

    Raises:
        ProvisioningError: of WireServer.

    """
    deadline = time.monotonic() + ROLE_PROPERTIES_LIMIT
    async with open_transport(Timeline()) as transport:
        goal_state = await fetch_goal_state(transport, base_url, deadline=deadline)
        body = build_role_properties(goal_state, value)
        try:
            await transport.attempt(
                WIRESERVER, "POST", base_url + PATH, headers=HEALTH_HEADERS, deadline=deadline, body=body
            )
        except AttemptFailed as refusal:
            raise refusal.error from refusal


def build_role_properties(goal_state: GoalState, value: str) -> bytes:
    """Return the document that tells a role's property to WireServer."""
    return (
        '<?xml version="1.0" encoding="utf-8"?><RoleProperties><Container>'
        f"<ContainerId>{escape(goal_state.container_id)}</ContainerId><RoleInstances><RoleInstance>"
        f"<Id>{escape(goal_state.instance_id)}</Id><Properties>"
        f'<Property name="CertificateThumbprint" value={quoteattr(value)} />'
        "</Properties></RoleInstance></RoleInstances></Container></RoleProperties>"
    ).encode()
