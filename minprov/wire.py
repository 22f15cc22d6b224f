"""WireServer, the platform's control endpoint: its requests, and what its goal state says.

The goal state tells which incarnation of which container this VM is; a health report must echo that to be accepted.
`parse_goal_state` is pure; the clients get the transport as an argument.

Microsoft documents neither; names and headers are those of WALinuxAgent (`common/protocol/wire.py`, `goal_state.py`),
cloud-init (`sources/helpers/azure.py`) and azure-init (`libazureinit/src/goalstate.rs`, `health.rs`).
"""

from __future__ import annotations

import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.xml_document import parse_document
from minprov.limits import WIRESERVER_LONGEST_WAIT
from minprov.model import GoalState
from minprov.network.retry import AttemptFailed, Endpoint, retry
from minprov.report import build_health_json, build_health_xml

if TYPE_CHECKING:
    from collections.abc import Callable

    from minprov.network.transport import Transport

logger = logging.getLogger(__name__)

ENDPOINT = "http://168.63.129.16"
HEADERS = {"x-ms-version": "2012-11-30", "x-ms-agent-name": "minprov"}
GOAL_STATE_PATH = "/machine/?comp=goalstate"
HEALTH_PATH = "/machine?comp=health"
HEALTH_HEADERS = HEADERS | {"Content-Type": "text/xml;charset=utf-8"}
# The second channel, which needs no goal state. azure-init uses it alone.
JSON_HEALTH_PATH = "/provisioning/health"
JSON_HEALTH_HEADERS = {"Content-Type": "application/json", "x-ms-guest-agent-name": "minprov"}


# What azure-init does not retry (`libazureinit/src/http.rs`); waagent retries 403, as throttling.
FINAL_STATUSES = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.METHOD_NOT_ALLOWED})
WIRESERVER = Endpoint(
    name="WireServer",
    connection_failed=Reason.WIRESERVER_CONNECTION,
    connect_timed_out=Reason.WIRESERVER_TIMEOUT,
    read_timed_out=Reason.WIRESERVER_TIMEOUT,
    refused=Reason.WIRESERVER_HTTP,
    final_statuses=FINAL_STATUSES,
    longest_wait=WIRESERVER_LONGEST_WAIT,
)
ATTEMPTS_BEFORE_JSON = 3


class Delivery(NamedTuple):
    """How a health report reached the platform: by the ``xml`` or the ``json`` channel, after so many attempts."""

    channel: str
    attempts: int


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


async def fetch_goal_state(transport: Transport, base_url: str, *, deadline: float) -> GoalState:
    """Return the current goal state.

    Raises:
        ProvisioningError: the last attempt's, when none succeeds before the deadline.
    """
    return await retry(lambda: _attempt_goal_state(transport, base_url, deadline), deadline=deadline)


async def report_health(
    transport: Transport,
    base_url: str,
    *,
    deadline: float,
    goal_state: GoalState | None = None,
    failure: str | None = None,
    claim: Callable[[], bool] = lambda: True,
) -> Delivery:
    """Report Ready, or NotReady with the description of a failure, by whichever channel accepts it first.

    The XML report answers a goal state: the given one serves the first attempt, and each further attempt fetches it
    anew, since a stale incarnation is refused with 410 (afterburn#461). JSON needs none; it is tried once XML was
    refused for good, failed `ATTEMPTS_BEFORE_JSON` times, or took or asks for half of the time that was left. Neither
    is given up before the deadline, since without a report the platform waits 40 minutes for one. `claim` is asked
    before the first byte of a report: where it says no, somebody else has reported.

    Raises:
        ProvisioningError: the last XML attempt's, when neither channel accepts the report before the deadline.
    """
    attempts = 0

    def require_claim() -> None:
        if not claim():
            raise AttemptFailed(ProvisioningError(Reason.DEADLINE, detail="the last resort has reported"), final=True)

    async def deliver() -> Delivery:
        nonlocal attempts, goal_state
        attempts += 1
        # When little time is left, one silent server must not take all of it: half is for the second channel.
        half = (time.monotonic() + deadline) / 2
        try:
            current, goal_state = goal_state or await _attempt_goal_state(transport, base_url, half), None
            require_claim()
            await _post_xml(transport, base_url, current, failure, half)
            return Delivery(channel="xml", attempts=attempts)
        except AttemptFailed as refusal:
            logger.info("health report by XML: %s", refusal.error)
            if refusal.status == HTTPStatus.GONE:
                refusal.delay = None  # a new goal state is there already
            next_attempt = time.monotonic() + (refusal.delay or 0.0)
            if not refusal.final and attempts < ATTEMPTS_BEFORE_JSON and next_attempt < half:
                raise
            xml_refusal = refusal
        require_claim()
        try:
            await _post_json(transport, base_url, failure, deadline)
            return Delivery(channel="json", attempts=attempts)
        except AttemptFailed as refusal:
            logger.info("health report by JSON: %s", refusal.error)
            raise AttemptFailed(xml_refusal.error, delay=xml_refusal.delay) from refusal

    return await retry(deliver, deadline=deadline)


async def _attempt_goal_state(transport: Transport, base_url: str, deadline: float) -> GoalState:
    url = base_url + GOAL_STATE_PATH
    body = await transport.attempt(WIRESERVER, "GET", url, headers=HEADERS, deadline=deadline)
    try:
        return parse_goal_state(body)
    except ProvisioningError as error:
        raise AttemptFailed(error) from error


async def _post_xml(
    transport: Transport, base_url: str, goal_state: GoalState, failure: str | None, deadline: float
) -> None:
    body = (
        build_health_xml(goal_state, state="Ready")
        if failure is None
        else build_health_xml(goal_state, state="NotReady", substatus="ProvisioningFailed", description=failure)
    )
    url = base_url + HEALTH_PATH
    await transport.attempt(WIRESERVER, "POST", url, headers=HEALTH_HEADERS, deadline=deadline, body=body)


async def _post_json(transport: Transport, base_url: str, failure: str | None, deadline: float) -> None:
    body = (
        build_health_json(state="Ready")
        if failure is None
        else build_health_json(state="NotReady", substatus="ProvisioningFailed", description=failure)
    )
    url = base_url + JSON_HEALTH_PATH
    await transport.attempt(WIRESERVER, "POST", url, headers=JSON_HEALTH_HEADERS, deadline=deadline, body=body)
