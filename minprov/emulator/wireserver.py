"""The WireServer at 168.63.129.16: request -> reply.

It knows the goal state of the moment and nothing of the past: whoever echoes another incarnation, container or role
instance is told 410 and has to fetch the goal state again. What the real one answers to a wrong container id is not
documented; a container that is gone is the likeliest cause, hence the same 410.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from . import certificates, goal_state
from .exchange import HealthReport, Reply

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

    from .exchange import Request
    from .vm import VirtualMachine

# A longer description gets a 500: Azure/WALinuxAgent#2017. (Agents trim to 512, which is what the portal shows.)
MAX_DESCRIPTION = 4096

_ERROR = """\
<?xml version="1.0" encoding="utf-8"?>
<Error xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">
    <Code>{code}</Code>
    <Message>{message}</Message>
    <Details></Details>
</Error>
"""


class _RefusalError(Exception):
    """A request the platform turns down: status, code and message for the guest, and why for the log."""

    def __init__(self, status: int, code: str, message: str, why: str | None = None) -> None:
        super().__init__(message)
        self.reply = Reply(
            status=status, body=_ERROR.format(code=code, message=escape(message)).encode(), refusal=why or message
        )


def endpoint(request: Request) -> str | None:
    """Return the name of the endpoint a request is for, `None` if there is none."""
    comp = (request.parameter("comp") or "").lower()
    match request.path.strip("/").split("/"):
        case [""]:
            return "versions" if comp == "versions" else None
        case ["machine"]:
            return {
                "goalstate": "goal-state",
                "health": "health",
                "roleproperties": "role-properties",
                "telemetrydata": "telemetry",
            }.get(comp)
        case ["machine", _, _] if comp == "certificates":
            return "certificates"
        case ["machine", _, _] if comp == "config":
            kind = (request.parameter("type") or "").lower()
            return next((name for name in _CONFIGS if name.replace("-", "") == kind), None)
        case ["provisioning", "health"]:
            return "provisioning-health"
        case ["HealthService"]:
            return "health-service"
    return None


def answer(vm: VirtualMachine, request: Request) -> Reply:
    """Judge a request and answer it as the WireServer does."""
    try:
        return _judge(vm, request)
    except _RefusalError as refused:
        return refused.reply


def _judge(vm: VirtualMachine, request: Request) -> Reply:
    name = endpoint(request)
    if name is None:
        raise _RefusalError(404, "ResourceNotFound", "The requested resource does not exist.")
    method, handler = _ENDPOINTS[name]
    if request.method != method:
        raise _RefusalError(405, "MethodNotAllowed", f"{name} takes {method}, not {request.method}.")
    if request.path.startswith("/machine"):
        _require_version(request)
    return handler(vm, request)


def _require_version(request: Request) -> None:
    version = request.headers.get("x-ms-version")
    if version is None:
        raise _RefusalError(400, "MissingRequiredHeader", "A required HTTP header was not specified: x-ms-version.")
    if version not in goal_state.PROTOCOL_VERSIONS:
        raise _RefusalError(400, "InvalidHeaderValue", f"x-ms-version {version!a} is not supported.")


def _require_content_type(request: Request, *accepted: str) -> None:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in accepted:
        raise _RefusalError(
            415, "UnsupportedMediaType", f"Content-Type is {content_type!a}, not {' or '.join(accepted)}."
        )


def _require_current(what: str, given: str | None, current: str) -> None:
    if given != current:
        raise _RefusalError(
            410,
            "ResourceNotAvailable",
            "The resource requested is no longer available. Please refresh your cache.",
            why=f"{what} is {current}, not {given}",
        )


def _answer_versions(_vm: VirtualMachine, _request: Request) -> Reply:
    return Reply(body=goal_state.build_versions())


def _answer_goal_state(vm: VirtualMachine, request: Request) -> Reply:
    return Reply(body=goal_state.build_goal_state(vm, request.headers.get("host", "168.63.129.16")))


def _require_current_link(vm: VirtualMachine, request: Request) -> None:
    _, _, container_id, instance_id = request.path.split("/", 3)
    _require_current("container id", container_id, vm.container_id)
    _require_current("instance id", instance_id, vm.instance_id)
    _require_current("incarnation", request.parameter("incarnation"), str(vm.incarnation))


def _answer_config(build: Callable[[VirtualMachine], bytes]) -> Callable[[VirtualMachine, Request], Reply]:
    def handler(vm: VirtualMachine, request: Request) -> Reply:
        _require_current_link(vm, request)
        return Reply(body=build(vm))

    return handler


def _answer_certificates(vm: VirtualMachine, request: Request) -> Reply:
    _require_current_link(vm, request)
    certificate = request.headers.get("x-ms-guest-agent-public-x509-cert")
    cipher = request.headers.get("x-ms-cipher-name")
    if certificate is None or cipher not in certificates.CIPHERS:
        message = "Headers x-ms-guest-agent-public-x509-cert and x-ms-cipher-name are required."
        raise _RefusalError(400, "MissingRequiredHeader", message, why=f"the cipher is {cipher}")
    try:
        document = certificates.build_certificates(certificate, cipher, vm.certificates, incarnation=vm.incarnation)
        return Reply(body=document)
    except certificates.OpensslError as error:
        raise _RefusalError(400, "InvalidHeaderValue", "The certificate cannot be used.", why=str(error)) from error


def _answer_health(vm: VirtualMachine, request: Request) -> Reply:
    _require_content_type(request, "text/xml", "application/xml")
    root = _parse_xml(request.body, "Health")
    role = _only(_only(root, "Container"), "RoleInstanceList/Role")
    health = _only(role, "Health")
    details = health.find("Details")
    report = HealthReport(
        channel="xml",
        state=_text(health, "State"),
        substatus=None if details is None else _text(details, "SubStatus"),
        description=None if details is None else _text(details, "Description"),
    )
    _require_current("incarnation", _text(root, "GoalStateIncarnation"), str(vm.incarnation))
    _require_current("container id", _text(root, "Container/ContainerId"), vm.container_id)
    _require_current("instance id", _text(role, "InstanceId"), vm.instance_id)
    return Reply(health=_accept(report))


def _answer_provisioning_health(_vm: VirtualMachine, request: Request) -> Reply:
    # Azure/azure-init, libazureinit/src/health.rs: no goal state is needed, and the answer is 201.
    _require_content_type(request, "application/json")
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise _RefusalError(400, "InvalidJson", f"The health report is not JSON: {error}.") from error
    match document:
        case {"state": str(state), "details": {"subStatus": str(substatus), "description": str(description)}}:
            report = HealthReport(channel="json", state=state, substatus=substatus, description=description)
        case {"state": str(state)} if "details" not in document:
            report = HealthReport(channel="json", state=state)
        case _:
            raise _RefusalError(400, "InvalidJson", "The report lacks state, details.subStatus or details.description.")
    return Reply(status=201, content_type="application/json", health=_accept(report))


def _accept(report: HealthReport) -> HealthReport:
    if report.state not in {"Ready", "NotReady"}:
        raise _RefusalError(400, "InvalidHealthState", f"The state is {report.state!a}, not Ready or NotReady.")
    if report.state == "NotReady" and report.substatus is None:
        raise _RefusalError(400, "InvalidHealthState", "NotReady comes without a sub-status.")
    if len(report.description or "") > MAX_DESCRIPTION:
        raise _RefusalError(
            500, "InternalError", "The server encountered an internal error.", why="the description is too long"
        )
    return report


def _answer_role_properties(vm: VirtualMachine, request: Request) -> Reply:
    # Not the health document's names: RoleInstances/RoleInstance/Id (Azure/WALinuxAgent, common/protocol/wire.py).
    _require_content_type(request, "text/xml", "application/xml")
    root = _parse_xml(request.body, "RoleProperties")
    _require_current("container id", _text(root, "Container/ContainerId"), vm.container_id)
    _require_current("instance id", _text(root, "Container/RoleInstances/RoleInstance/Id"), vm.instance_id)
    return Reply(status=202)


def _answer_telemetry(_vm: VirtualMachine, request: Request) -> Reply:
    _require_content_type(request, "text/xml", "application/xml")
    _parse_xml(request.body, "TelemetryData")
    return Reply()


def _answer_health_service(_vm: VirtualMachine, request: Request) -> Reply:
    _require_content_type(request, "application/json")
    return Reply(content_type="application/json")


def _parse_xml(body: bytes, root_tag: str) -> Element:
    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:  # the last: an encoding of no such name
        raise _RefusalError(
            400, "InvalidXml", "The request body is not well-formed XML.", why=f"not XML: {error}"
        ) from error
    if root.tag != root_tag:
        raise _RefusalError(400, "InvalidXml", f"The root element is not {root_tag}.")
    return root


def _only(parent: Element, path: str) -> Element:
    found = parent.findall(path)
    if len(found) != 1:
        raise _RefusalError(400, "InvalidXml", f"{path} occurs {len(found)} times in {parent.tag}.")
    return found[0]


def _text(parent: Element, path: str) -> str:
    return (_only(parent, path).text or "").strip()


_CONFIGS: dict[str, Callable[[VirtualMachine], bytes]] = {
    "hosting-environment-config": goal_state.build_hosting_environment_config,
    "shared-config": goal_state.build_shared_config,
    "extensions-config": goal_state.build_extensions_config,
    "full-config": goal_state.build_full_config,
}

_ENDPOINTS: dict[str, tuple[str, Callable[[VirtualMachine, Request], Reply]]] = {
    "versions": ("GET", _answer_versions),
    "goal-state": ("GET", _answer_goal_state),
    "health": ("POST", _answer_health),
    "provisioning-health": ("POST", _answer_provisioning_health),
    "role-properties": ("POST", _answer_role_properties),
    "telemetry": ("POST", _answer_telemetry),
    "health-service": ("POST", _answer_health_service),
    "certificates": ("GET", _answer_certificates),
    **{name: ("GET", _answer_config(build)) for name, build in _CONFIGS.items()},
}
