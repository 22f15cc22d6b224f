from __future__ import annotations

import csv
import io
import json
from typing import TypedDict
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minprov.errors import Reason
from minprov.model import GoalState
from minprov.report import build_health_json, build_health_xml, encode_failure, encode_success

GOAL_STATE = GoalState(incarnation="7", container_id="c6d5526c-5ac2-4200-b6e2-56f2b70c5ab2", instance_id="b61f._web")


class Who(TypedDict):
    agent: str
    vm_id: str
    timestamp: str


WHO = Who(agent="minprov/0.1.0", vm_id="02aab8a4-74ef-476e-8182-f6d2ba4166a6", timestamp="2026-01-02T03:04:05+00:00")
NUL_TO_SPACE = "".join(map(chr, range(32)))


def fields(report: str) -> dict[str, str]:
    """Read a report as the host's consumers do: as csv."""
    (row,) = csv.reader(io.StringIO(report), delimiter="|", quotechar="'")
    return dict(field.split("=", 1) for field in row)


def health_document(health: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        "<Health><GoalStateIncarnation>7</GoalStateIncarnation><Container>"
        "<ContainerId>c6d5526c-5ac2-4200-b6e2-56f2b70c5ab2</ContainerId>"
        f"<RoleInstanceList><Role><InstanceId>b61f._web</InstanceId><Health>{health}</Health></Role></RoleInstanceList>"
        "</Container></Health>"
    ).encode()


def test_ready_has_state_and_no_details() -> None:
    assert build_health_xml(GOAL_STATE, state="Ready") == health_document("<State>Ready</State>")


def test_failure_has_substatus_and_description_in_both_documents() -> None:
    description = "result=error|reason=<x>"
    assert build_health_xml(
        GOAL_STATE, state="NotReady", substatus="ProvisioningFailed", description=description
    ) == health_document(
        "<State>NotReady</State><Details><SubStatus>ProvisioningFailed</SubStatus>"
        "<Description>result=error|reason=&lt;x&gt;</Description></Details>"
    )
    document = build_health_json(state="NotReady", substatus="ProvisioningFailed", description=description)
    assert json.loads(document) == {
        "state": "NotReady",
        "details": {"subStatus": "ProvisioningFailed", "description": description},
    }


def test_ready_in_json_is_the_state_alone() -> None:
    assert build_health_json(state="Ready") == b'{"state": "Ready"}'


@given(st.text(st.characters()))
@example("</Description><State>Ready</State>&amp;]]>")
@example("\r\n\t")
@example(NUL_TO_SPACE + "\ud7ff\ud800\udfff\ue000\ufffd\ufffe\uffff\U00010000\U0010ffff")
def test_any_description_arrives_with_only_impossible_characters_replaced(text: str) -> None:
    expected = "".join(c if c in "\t\n\r" or c.isprintable() or is_xml(c) else "\ufffd" for c in text)
    document = build_health_xml(GOAL_STATE, state="NotReady", substatus="ProvisioningFailed", description=text)
    assert (ElementTree.fromstring(document).findtext(".//Description") or "") == expected
    document = build_health_json(state="NotReady", substatus="ProvisioningFailed", description=text)
    assert json.loads(document)["details"]["description"] == expected


def is_xml(character: str) -> bool:
    return 0x20 <= ord(character) <= 0xD7FF or 0xE000 <= ord(character) <= 0xFFFD or ord(character) > 0xFFFF


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\ufffe\uffff"), min_size=1))
@example("<a>&'\"")
def test_goal_state_is_echoed_whatever_it_holds(text: str) -> None:
    goal_state = GoalState(incarnation=text, container_id=text, instance_id=text)
    root = ElementTree.fromstring(build_health_xml(goal_state, state="Ready"))
    paths = ("GoalStateIncarnation", "Container/ContainerId", "Container/RoleInstanceList/Role/InstanceId")
    assert [root.findtext(path) for path in paths] == [text] * 3


def test_success_is_one_line_of_known_fields() -> None:
    assert encode_success(**WHO) == (
        "result=success|agent=minprov/0.1.0|pps_type=None|vm_id=02aab8a4-74ef-476e-8182-f6d2ba4166a6"
        "|timestamp=2026-01-02T03:04:05+00:00"
    )


def test_failure_puts_the_reason_first_and_quotes_where_needed() -> None:
    assert encode_failure("invalid hostname", {"value": "a|b's", "rule": "none"}, **WHO) == (
        "result=error|reason=invalid hostname|agent=minprov/0.1.0|'value=a|b''s'|rule=none"
        "|pps_type=None|vm_id=02aab8a4-74ef-476e-8182-f6d2ba4166a6|timestamp=2026-01-02T03:04:05+00:00"
        "|documentation_url=https://aka.ms/linuxprovisioningerror"
    )


def test_report_is_quoted_as_the_csv_module_does() -> None:
    data = {"a": "plain", "b": "pi|pe", "c": "quo'te", "d": "'", "e": "", "f": 'dou"ble', "g": "a,b"}
    report = encode_failure("x", data, **WHO)
    expected = io.StringIO()
    writer = csv.writer(expected, delimiter="|", quotechar="'", lineterminator="")
    writer.writerow(f"{key}={value}" for key, value in fields(report).items())
    assert report == expected.getvalue()
    assert data.items() <= fields(report).items()


@pytest.mark.parametrize("limit", [512, 1022])
@pytest.mark.parametrize("reason", Reason)
def test_report_keeps_reason_and_vm_id_within_the_limit(reason: Reason, limit: int) -> None:
    report = encode_failure(reason.phrase, {"stderr": "'" * 5000, "command": "x" * 5000}, **WHO, limit=limit)
    assert limit - 8 <= len(report.encode()) <= limit  # nothing is cut that would have fitted
    assert fields(report)["reason"] == reason.phrase
    assert fields(report)["vm_id"] == WHO["vm_id"]


def test_description_of_a_health_report_has_room_for_512_bytes() -> None:
    assert len(encode_failure("x", {"stderr": "e" * 5000}, **WHO)) == 512


def test_long_values_are_cut_and_short_ones_kept() -> None:
    data = {"stderr": "e" * 400, "status": "1", "stdout": "o" * 400, "tool": "/usr/sbin/useradd"}
    kept = fields(encode_failure("system tool failed", data, **WHO))
    assert (kept["status"], kept["tool"]) == ("1", "/usr/sbin/useradd")
    assert kept["stderr"].startswith("eeee")
    assert kept["stderr"].endswith("...")
    assert abs(len(kept["stderr"]) - len(kept["stdout"])) < 40


def test_last_fields_are_left_out_when_all_are_short() -> None:
    data = {f"key_{n}": "0123456789abcdef" for n in range(100)}
    kept = fields(encode_failure("x", data, **WHO))
    assert [key for key in data if key in kept] == list(data)[: len(kept) - 7]
    assert 0 < len(kept) - 7 < 100


KEYS = st.sampled_from(["stderr", "path", "element", "detail", "value", "command", "errno"])


@given(
    st.sampled_from([*Reason]),
    st.dictionaries(KEYS, st.text(st.characters()) | st.text(st.sampled_from("'|\N{PILE OF POO}\n"), max_size=700)),
)
def test_any_failure_is_one_printable_line_that_reads_back(reason: Reason, data: dict[str, str]) -> None:
    report = encode_failure(reason.phrase, data, **WHO)
    assert len(report) <= len(report.encode()) <= 512
    assert report.isprintable()
    read = fields(report)
    assert list(read)[:3] == ["result", "reason", "agent"]
    assert list(read)[-3:] == ["vm_id", "timestamp", "documentation_url"]
    for key, value in read.items():
        if key in data:
            shown = "".join(c if c.isprintable() else " " for c in data[key])
            assert value == shown or (value.endswith("...") and shown.startswith(value[:-3]))
