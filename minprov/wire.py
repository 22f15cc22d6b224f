"""WireServer, the platform's control endpoint: its requests, and what its goal state says.

The goal state tells which incarnation of which container this VM is; a health report must echo that to be accepted.
`parse_goal_state` is pure.

Microsoft documents neither; names and headers are those of WALinuxAgent (`common/protocol/wire.py`, `goal_state.py`),
cloud-init (`sources/helpers/azure.py`) and azure-init (`libazureinit/src/goalstate.rs`, `health.rs`).
"""

from __future__ import annotations

from minprov.errors import Reason
from minprov.model import GoalState
from minprov.xmldoc import parse_document

ENDPOINT = "http://168.63.129.16"
HEADERS = {"x-ms-version": "2012-11-30", "x-ms-agent-name": "minprov"}
GOAL_STATE_PATH = "/machine/?comp=goalstate"
HEALTH_PATH = "/machine?comp=health"
HEALTH_HEADERS = HEADERS | {"Content-Type": "text/xml;charset=utf-8"}
# The second channel, which needs no goal state. azure-init uses it alone.
JSON_HEALTH_PATH = "/provisioning/health"
JSON_HEALTH_HEADERS = {"Content-Type": "application/json", "x-ms-guest-agent-name": "minprov"}


def parse_goal_state(data: bytes) -> GoalState:
    """Return what a health report must echo.

    Raises:
        ProvisioningError: GOAL_STATE_INVALID with what is wrong and in which element.
    """
    root = parse_document(data, "", malformed=Reason.GOAL_STATE_INVALID, invalid=Reason.GOAL_STATE_INVALID)
    if root.name != "GoalState":
        raise root.error("is not GoalState")
    container = root.required("Container")
    instances = container.required("RoleInstanceList")
    instance = next(instances.children("RoleInstance"), None)  # a VM has one; the agents take the first
    if instance is None:
        raise instances.error("has no RoleInstance")
    return GoalState(
        incarnation=root.required_text("Incarnation"),
        container_id=container.required_text("ContainerId"),
        instance_id=instance.required_text("InstanceId"),
    )
