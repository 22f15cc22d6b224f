from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.errors import ProvisioningError, Reason
from minprov.model import GoalState
from minprov.wire import parse_goal_state
from tests.mutations import mutations

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL_STATE = (Path(__file__).parent / "data/wire/goal-state.xml").read_bytes()


def refusal(data: bytes) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as failure:
        parse_goal_state(data)
    assert failure.value.reason is Reason.GOAL_STATE_INVALID
    return failure.value


def without(element: str) -> bytes:
    data = re.sub(rf"<{element}>.*</{element}>".encode(), b"", GOAL_STATE, flags=re.DOTALL)
    assert data != GOAL_STATE
    return data


def emptied(element: str) -> bytes:
    empty = f"<{element}>\r\n </{element}>".encode()
    data = re.sub(rf"<{element}>.*</{element}>".encode(), empty, GOAL_STATE, flags=re.DOTALL)
    assert data != GOAL_STATE
    return data


@pytest.mark.parametrize(
    "data",
    [
        GOAL_STATE,
        b"\xef\xbb\xbf" + GOAL_STATE,
        GOAL_STATE.replace(b"\n", b"\r\n"),
        GOAL_STATE.replace(b">7<", b">\r\n    7\r\n  <"),
        GOAL_STATE.replace(b"        <Certificates", b"        <!-- none --><Certificates"),
        without("Configuration"),  # a VM without keys has no certificates (afterburn#405)
    ],
)
def test_goal_state_is_what_a_health_report_echoes(data: bytes) -> None:
    assert parse_goal_state(data) == GoalState(
        incarnation="7",
        container_id="c6d5526c-5ac2-4200-b6e2-56f2b70c5ab2",
        instance_id="b61f93d0-e1ed-40b2-b067-22c243233448._web & co",
    )


def test_first_role_instance_is_this_vm() -> None:
    other = b"<RoleInstance><InstanceId>other</InstanceId></RoleInstance>"
    data = GOAL_STATE.replace(b"</RoleInstanceList>", other + b"</RoleInstanceList>")
    assert parse_goal_state(data) == parse_goal_state(GOAL_STATE)


@pytest.mark.parametrize(
    "element", ["Incarnation", "Container", "ContainerId", "RoleInstanceList", "RoleInstance", "InstanceId"]
)
@pytest.mark.parametrize("damaged", [without, emptied])
def test_missing_or_empty_element_is_named(element: str, damaged: Callable[[str], bytes]) -> None:
    assert element in str(refusal(damaged(element)))


def test_role_instance_list_without_an_instance_is_said_to_be_so() -> None:
    error = refusal(emptied("RoleInstanceList"))
    assert error.data == {"element": "RoleInstanceList", "detail": "has no RoleInstance"}


@pytest.mark.parametrize("element", ["Incarnation", "Container", "ContainerId", "RoleInstanceList", "InstanceId"])
def test_repeated_element_is_named(element: str) -> None:
    twice = re.sub(rf"(<{element}>.*</{element}>)".encode(), rb"\1\1", GOAL_STATE, flags=re.DOTALL)
    assert refusal(twice).data["element"] == element


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        GOAL_STATE[:-9],
        b"<!DOCTYPE x>" + GOAL_STATE.partition(b"?>")[2],
        b"<Versions/>",
        GOAL_STATE.replace(b"<GoalState ", b"<GoalState xmlns='urn:x' "),
        GOAL_STATE.replace(b"GoalState", b"SharedConfig"),
    ],
)
def test_what_is_no_goal_state_is_refused(data: bytes) -> None:
    refusal(data)


@given(st.binary() | mutations(GOAL_STATE))
def test_any_bytes_are_a_value_or_a_provisioning_error(data: bytes) -> None:
    try:
        goal_state = parse_goal_state(data)
    except ProvisioningError as error:
        assert error.reason is Reason.GOAL_STATE_INVALID
    else:
        assert all((goal_state.incarnation, goal_state.container_id, goal_state.instance_id))
