"""What the emulated platform refuses: the rules of WireServer, IMDS and HostGAPlugin, one line each."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minprov.emulator import goal_state, host_plugin, imds, wireserver
from minprov.emulator.exchange import HealthReport, Reply, Request
from minprov.emulator.faults import ENDPOINTS
from minprov.emulator.vm import IMDS_API_VERSIONS, SAMPLE_VM, VirtualMachine
from minprov.model import GoalState
from minprov.ovf import parse_ovf_env
from minprov.report import build_health_json, build_health_xml
from minprov.wire import parse_goal_state
from tests.mutations import mutations

if TYPE_CHECKING:
    from types import ModuleType

VM = replace(SAMPLE_VM, incarnation=5)
VERSION = {"x-ms-version": "2012-11-30"}
XML = VERSION | {"content-type": "text/xml;charset=utf-8"}
JSON = {"content-type": "application/json"}
READY = "<State>Ready</State>"
FAILED = (
    "<State>NotReady</State><Details><SubStatus>ProvisioningFailed</SubStatus><Description>{}</Description></Details>"
)


def health_document(
    health: str = READY,
    *,
    incarnation: object = VM.incarnation,
    container_id: str = VM.container_id,
    instance_id: str = VM.instance_id,
) -> bytes:
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        '<Health xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<GoalStateIncarnation>{incarnation}</GoalStateIncarnation><Container><ContainerId>{container_id}</ContainerId>"
        f"<RoleInstanceList><Role><InstanceId>{instance_id}</InstanceId><Health>{health}</Health></Role>"
        "</RoleInstanceList></Container></Health>"
    ).encode()


def post_health(body: bytes, headers: dict[str, str] = XML) -> Reply:
    request = Request(method="POST", path="/machine", query=(("comp", "health"),), headers=headers, body=body)
    assert wireserver.endpoint(request) == "health"
    return wireserver.answer(VM, request)


def post_provisioning_health(body: bytes, headers: dict[str, str] = JSON) -> Reply:
    return wireserver.answer(VM, Request(method="POST", path="/provisioning/health", headers=headers, body=body))


# WireServer: goal state


@pytest.mark.parametrize("path", ["/machine", "/machine/"])
@pytest.mark.parametrize("version", ["2012-11-30", "2015-04-05"])
def test_the_goal_state_has_what_a_report_must_echo(path: str, version: str) -> None:
    request = Request(method="GET", path=path, query=(("comp", "goalstate"),), headers={"x-ms-version": version})
    state = parse_goal_state(wireserver.answer(VM, request).body)
    assert (state.incarnation, state.container_id, state.instance_id) == ("5", VM.container_id, VM.instance_id)


def test_the_links_lead_back_to_the_name_the_guest_used() -> None:
    headers = VERSION | {"host": "wire.test:8080"}
    request = Request(method="GET", path="/machine", query=(("comp", "goalstate"),), headers=headers)
    root = ElementTree.fromstring(wireserver.answer(VM, request).body)
    links = [item.text or "" for item in root.iterfind(".//Configuration/*") if item.tag != "ConfigName"]
    assert len(links) == len(goal_state.LINKS)
    assert all(link.startswith(f"http://wire.test:8080/machine/{VM.container_id}/") for link in links)


@pytest.mark.parametrize("headers", [{}, {"x-ms-version": ""}, {"x-ms-version": "2099-01-01"}])
@pytest.mark.parametrize("comp", ["goalstate", "health", "roleProperties", "telemetrydata"])
def test_under_machine_every_request_needs_a_supported_version(comp: str, headers: dict[str, str]) -> None:
    method = "GET" if comp == "goalstate" else "POST"
    reply = wireserver.answer(VM, Request(method=method, path="/machine", query=(("comp", comp),), headers=headers))
    assert reply.status == 400
    assert "x-ms-version" in str(reply.refusal)


def test_the_list_of_versions_needs_no_version() -> None:
    reply = wireserver.answer(VM, Request(method="GET", path="/", query=(("comp", "versions"),)))
    supported = [item.text for item in ElementTree.fromstring(reply.body).iterfind("Supported/Version")]
    assert reply.status == 200
    assert {"2012-11-30", "2015-04-05"} <= set(supported)


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("POST", "/machine", "goalstate"),
        ("GET", "/machine", "health"),
        ("PUT", "/machine", "health"),
        ("GET", "/machine", "roleProperties"),
        ("GET", "/provisioning/health", ""),
        ("POST", "/", "versions"),
    ],
)
def test_get_and_post_are_not_the_same(method: str, path: str, query: str) -> None:
    request = Request(method=method, path=path, query=(("comp", query),), headers=XML, body=health_document())
    assert wireserver.answer(VM, request).status == 405


@pytest.mark.parametrize(
    ("path", "comp"),
    [("/", ""), ("/machine", ""), ("/machine", "nothing"), ("/machines", "health"), ("/provisioning", ""), ("/x", "")],
)
def test_what_does_not_exist_is_not_found(path: str, comp: str) -> None:
    reply = wireserver.answer(VM, Request(method="GET", path=path, query=(("comp", comp),), headers=VERSION))
    assert reply.status == 404


def test_a_refusal_is_an_xml_error_as_the_platform_writes_it() -> None:
    reply = post_health(health_document(incarnation=4))
    root = ElementTree.fromstring(reply.body)
    assert (root.tag, root.findtext("Code")) == ("Error", "ResourceNotAvailable")


# WireServer: XML health


def test_a_ready_report_is_taken() -> None:
    reply = post_health(health_document())
    assert (reply.status, reply.health) == (200, HealthReport(channel="xml", state="Ready"))


def test_a_failure_report_is_taken_with_its_description() -> None:
    reply = post_health(health_document(FAILED.format("a &amp; b &lt;c&gt;")))
    assert reply.status == 200
    assert reply.health == HealthReport(
        channel="xml", state="NotReady", substatus="ProvisioningFailed", description="a & b <c>"
    )


@pytest.mark.parametrize(
    "stale",
    [
        {"incarnation": 4},
        {"incarnation": 6},
        {"incarnation": ""},
        {"container_id": "00000000-0000-0000-0000-000000000000"},
        {"instance_id": "00000000-0000-0000-0000-000000000000._web-01"},
        {"instance_id": VM.instance_id.upper()},
    ],
)
def test_a_report_for_another_goal_state_is_gone(stale: dict[str, str]) -> None:
    reply = post_health(health_document(**stale))
    assert (reply.status, reply.health) == (410, None)
    assert reply.refusal


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ready",
        b"<Health>",
        health_document()[:-1],
        health_document().replace(b"Health>", b"health>"),
        health_document().replace(b"<Health xmlns", b"<Health xmlns='urn:x' xmlns"),
        health_document().replace(b"Role>", b"RoleInstance>"),
        health_document().replace(b"<State>Ready</State>", b""),
        health_document(READY * 2),
        health_document("<State>ready</State>"),
        health_document("<State>Broken</State>"),
        health_document("<State>NotReady</State>"),
        health_document("<State>NotReady</State><Details><SubStatus>ProvisioningFailed</SubStatus></Details>"),
        b"<!DOCTYPE Health [<!ENTITY r 'Ready'>]>" + health_document("<State>&r;</State>").partition(b"?>")[2],
    ],
)
def test_a_malformed_report_is_a_bad_request(body: bytes) -> None:
    reply = post_health(body)
    assert (reply.status, reply.health) == (400, None)
    assert reply.refusal


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_a_report_of_another_content_type_is_not_read(content_type: str | None) -> None:
    headers = VERSION | ({} if content_type is None else {"content-type": content_type})
    assert post_health(health_document(), headers).status == 415


@pytest.mark.parametrize(("length", "status"), [(4096, 200), (4097, 500)])
def test_a_description_that_is_too_long_breaks_the_server(length: int, status: int) -> None:
    reply = post_health(health_document(FAILED.format("x" * length)))
    assert reply.status == status
    assert (reply.health is not None) == (status == 200)


# WireServer: JSON health


def test_json_health_answers_created() -> None:
    reply = post_provisioning_health(b'{"state":"Ready"}')
    assert (reply.status, reply.health) == (201, HealthReport(channel="json", state="Ready"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"Ready"',
        b"{}",
        b'{"state":"ready"}',
        b'{"state":["Ready"]}',
        b'{"state":"NotReady"}',
        b'{"state":"NotReady","details":{}}',
        b'{"state":"NotReady","details":{"subStatus":"ProvisioningFailed"}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_malformed_json_health_is_a_bad_request(body: bytes) -> None:
    reply = post_provisioning_health(body)
    assert (reply.status, reply.health) == (400, None)


def test_json_health_must_be_called_json() -> None:
    assert post_provisioning_health(b'{"state":"Ready"}', {"content-type": "text/xml"}).status == 415


def test_json_health_has_the_same_bound_on_the_description() -> None:
    report = {"state": "NotReady", "details": {"subStatus": "ProvisioningFailed", "description": "x" * 4097}}
    assert post_provisioning_health(json.dumps(report).encode()).status == 500


# WireServer: what minprov sends


@given(description=st.text(max_size=512))
@pytest.mark.parametrize("substatus", ["Provisioning", "ProvisioningFailed"])
def test_what_minprov_reports_is_taken_by_both_channels(
    substatus: Literal["Provisioning", "ProvisioningFailed"], description: str
) -> None:
    goal = GoalState(incarnation="5", container_id=VM.container_id, instance_id=VM.instance_id)
    xml = build_health_xml(goal, state="NotReady", substatus=substatus, description=description)
    for reply, channel in (
        (post_health(xml), "xml"),
        (
            post_provisioning_health(build_health_json(state="NotReady", substatus=substatus, description=description)),
            "json",
        ),
    ):
        assert reply.refusal is None
        assert reply.health is not None
        assert (reply.health.channel, reply.health.state, reply.health.substatus) == (channel, "NotReady", substatus)


# WireServer: whatever comes


@given(body=mutations(health_document(FAILED.format("x"))) | st.binary())
@example(b'<?xml version="1.0" encoding="none-such"?><Health/>')
def test_any_xml_report_is_taken_or_refused(body: bytes) -> None:
    reply = post_health(body)
    assert (reply.health is None) == (reply.status >= 400) == (reply.refusal is not None)


@given(body=mutations(b'{"state":"NotReady","details":{"subStatus":"s","description":"d"}}') | st.binary())
def test_any_json_report_is_taken_or_refused(body: bytes) -> None:
    reply = post_provisioning_health(body)
    assert (reply.health is None) == (reply.status >= 400) == (reply.refusal is not None)


@given(path=st.text(), pairs=st.lists(st.tuples(st.text(), st.text()), max_size=3), method=st.text())
@pytest.mark.parametrize("rules", [imds, wireserver, host_plugin])
def test_any_request_gets_a_reply(rules: ModuleType, path: str, pairs: list[tuple[str, str]], method: str) -> None:
    request = Request(method=method, path=f"/{path}", query=tuple(pairs), headers=XML | {"metadata": "true"})
    assert 200 <= rules.answer(VM, request).status < 600


# WireServer: the rest


def role_properties(container_id: str = VM.container_id, instance_id: str = VM.instance_id) -> bytes:
    return (
        f"<RoleProperties><Container><ContainerId>{container_id}</ContainerId><RoleInstances><RoleInstance>"
        f"<Id>{instance_id}</Id><Properties><Property name='CertificateThumbprint' value='SHA256abc' /></Properties>"
        "</RoleInstance></RoleInstances></Container></RoleProperties>"
    ).encode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (role_properties(), 202),
        (role_properties(container_id="other"), 410),
        (role_properties(instance_id="other"), 410),
        (health_document(), 400),
    ],
)
def test_role_properties_are_accepted_for_this_role_alone(body: bytes, status: int) -> None:
    request = Request(method="POST", path="/machine", query=(("comp", "roleProperties"),), headers=XML, body=body)
    assert wireserver.answer(VM, request).status == status


@pytest.mark.parametrize(
    ("container_id", "instance_id", "incarnation", "status"),
    [
        (VM.container_id, VM.instance_id, "5", 200),
        (VM.container_id, VM.instance_id, "4", 410),
        (VM.container_id, "other", "5", 410),
        ("other", VM.instance_id, "5", 410),
    ],
)
@pytest.mark.parametrize("kind", ["hostingEnvironmentConfig", "sharedConfig", "extensionsConfig", "fullConfig"])
def test_a_linked_document_is_gone_with_its_goal_state(
    kind: str, container_id: str, instance_id: str, incarnation: str, status: int
) -> None:
    request = Request(
        method="GET",
        path=f"/machine/{container_id}/{instance_id}",
        query=(("comp", "config"), ("type", kind), ("incarnation", incarnation)),
        headers=VERSION,
    )
    assert wireserver.answer(VM, request).status == status


# IMDS


def get_imds(
    path: str, query: str = "api-version=2023-11-15", method: str = "GET", vm: VirtualMachine = VM, **headers: str
) -> Reply:
    pairs = tuple((key, value) for key, _, value in (item.partition("=") for item in query.split("&")))
    headers = {name.replace("_", "-"): value for name, value in ({"metadata": "true"} | headers).items() if value}
    return imds.answer(vm, Request(method=method, path=path, query=pairs, headers=headers))


@pytest.mark.parametrize("value", ["true", "True", "TRUE"])
def test_the_metadata_header_is_not_case_sensitive(value: str) -> None:
    assert get_imds("/metadata/instance", metadata=value).status == 200


@pytest.mark.parametrize("path", ["/metadata/instance", "/metadata/versions", "/metadata/reprovisiondata"])
@pytest.mark.parametrize("value", ["", "false", "1"])
def test_without_the_metadata_header_there_is_nothing(path: str, value: str) -> None:
    reply = get_imds(path, metadata=value)
    assert reply.status == 400
    assert "Required metadata header" in json.loads(reply.body)["error"]


def test_a_forwarded_request_is_refused() -> None:
    assert get_imds("/metadata/instance", x_forwarded_for="10.0.0.1").status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
def test_imds_is_for_reading(method: str) -> None:
    assert get_imds("/metadata/instance", method=method).status == 405


@pytest.mark.parametrize("query", ["", "api-version=", "api-version=2020-01-01", "format=json"])
def test_an_unknown_api_version_is_answered_with_the_newest(query: str) -> None:
    reply = get_imds("/metadata/instance", query)
    assert reply.status == 400
    assert json.loads(reply.body)["newest-versions"] == ["2025-04-07", "2024-07-17", "2024-03-15"]


def test_a_duplicated_parameter_is_refused() -> None:
    assert get_imds("/metadata/instance", "api-version=2023-11-15&api-version=2023-11-15").status == 400


def test_a_platform_can_know_fewer_versions() -> None:
    stack = replace(VM, imds_api_versions=("2017-04-02", "2019-06-01"))
    headers = {"metadata": "true"}
    for version, status in (("2023-11-15", 400), ("2019-06-01", 200)):
        request = Request(method="GET", path="/metadata/instance", query=(("api-version", version),), headers=headers)
        assert imds.answer(stack, request).status == status


def test_versions_are_listed_without_a_version() -> None:
    assert json.loads(get_imds("/metadata/versions", "").body) == {"apiVersions": list(IMDS_API_VERSIONS)}


def test_the_extended_part_is_there_for_those_who_ask() -> None:
    plain, extended = (
        json.loads(get_imds("/metadata/instance", f"api-version=2023-11-15{more}").body)
        for more in ("", "&extended=true")
    )
    assert "extended" not in plain
    assert extended["extended"]["compute"] == {"hasCustomData": True, "ppsType": "None"}


@pytest.mark.parametrize(
    ("path", "query", "status", "body"),
    [
        ("compute/vmId", "&format=text", 200, VM.vm_id),
        ("compute/VMID", "&format=text", 200, VM.vm_id),
        ("compute/vmId", "", 400, None),
        ("compute/vmId", "&format=json", 400, None),
        ("compute/nothing", "&format=text", 404, None),
        ("compute/vmId/deeper", "&format=text", 404, None),
        ("network/interface/0/macAddress", "&format=text", 200, VM.mac_address),
        ("network/interface/1", "", 404, None),
        ("network/interface/x", "", 404, None),
        ("network", "&format=text", 200, "interface/"),
        ("network/interface", "&format=text", 200, "0/"),
    ],
)
def test_a_path_walks_down_the_document(path: str, query: str, status: int, body: str | None) -> None:
    reply = get_imds(f"/metadata/instance/{path}", f"api-version=2023-11-15{query}")
    assert reply.status == status
    if body is not None:
        assert reply.body.decode() == body


def test_a_branch_is_the_same_json_as_in_the_whole() -> None:
    whole = json.loads(get_imds("/metadata/instance").body)
    assert json.loads(get_imds("/metadata/instance/compute/").body) == whole["compute"]


@pytest.mark.parametrize("path", ["/", "/metadata", "/metadata/nothing", "/metadata/reprovisiondata", "/instance"])
def test_imds_has_nothing_else(path: str) -> None:
    reply = get_imds(path)
    assert reply.status == 404
    assert "error" in json.loads(reply.body)


def test_a_vm_that_has_got_its_owner_has_another_ovf_env() -> None:
    owned = replace(VM, hostname="owned-01", preprovisioned_vm_type="None", reprovisioned=True)
    reply = get_imds("/metadata/reprovisiondata", "api-version=2019-06-01", vm=owned)
    assert reply.status == 200
    assert parse_ovf_env(reply.body).hostname == "owned-01"
    assert get_imds("/metadata/reprovisiondata", "", vm=owned).status == 400


# HostGAPlugin


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/versions", 200),
        ("GET", "/health", 200),
        ("PUT", "/status", 200),
        ("PUT", "/vmAgentLog", 200),
        ("GET", "/status", 405),
        ("POST", "/versions", 405),
        ("GET", "/vmSettings", 404),
        ("GET", "/extensionArtifact", 404),
        ("GET", "/", 404),
    ],
)
def test_the_host_plugin_takes_status_and_has_no_vm_settings(method: str, path: str, status: int) -> None:
    assert host_plugin.answer(VM, Request(method=method, path=path)).status == status


# All


def test_every_endpoint_has_a_name_that_fault_scripts_know() -> None:
    configs = ("hostingEnvironmentConfig", "sharedConfig", "extensionsConfig", "fullConfig")
    wire = [Request(method="GET", path="/machine/a/b", query=(("comp", "config"), ("type", kind))) for kind in configs]
    wire += [
        Request(method="GET", path=path, query=(("comp", comp),))
        for path, comp in (
            ("/", "versions"),
            ("/machine", "goalstate"),
            ("/machine", "health"),
            ("/machine", "roleProperties"),
            ("/machine", "telemetrydata"),
            ("/machine/a/b", "certificates"),
            ("/provisioning/health", ""),
            ("/HealthService", ""),
        )
    ]
    metadata = [Request(method="GET", path=f"/metadata/{name}") for name in ("instance", "versions", "reprovisiondata")]
    host = [
        Request(method="GET", path=path)
        for path in ("/versions", "/health", "/status", "/vmAgentLog", "/vmSettings", "/extensionArtifact")
    ]
    names = [wireserver.endpoint(item) for item in wire]
    names += [imds.endpoint(item) for item in metadata] + [host_plugin.endpoint(item) for item in host]
    assert sorted(str(name) for name in names) == sorted(ENDPOINTS)
