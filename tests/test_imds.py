from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.errors import ProvisioningError, Reason
from minprov.imds import MAX_BYTES, parse_instance
from minprov.model import InstanceMetadata, SshPublicKey
from tests.cost import cost

INSTANCE = (Path(__file__).parent / "data/imds/instance.json").read_bytes()
DISABLE_PASSWORD = "disablePasswordAuthentication"
MIB = 1024 * 1024


def instance(compute: object = None, extended: object = None) -> bytes:
    return json.dumps({"compute": compute or {"name": "x"}, "extended": {"compute": extended}}).encode()


def refusal(data: bytes) -> ProvisioningError:
    """Return why the document, or the one value in it that is wrong, cannot be used."""
    try:
        [fault] = parse_instance(data).faults.values()
    except ProvisioningError as error:
        return error
    return fault


def test_every_value_of_a_full_answer_is_read() -> None:
    assert parse_instance(INSTANCE) == InstanceMetadata(
        vm_id="02aab8a4-74ef-476e-8182-f6d2ba4166a6",
        computer_name="Web-01",
        admin_username="azureuser",
        disable_password_authentication=True,
        ssh_public_keys=(
            SshPublicKey(
                value="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJBOTi8QEHmhYoWCa6cFgCBcuXcqJmcuSEDoEWqRFJxj first",
                path="/home/azureuser/.ssh/authorized_keys",
            ),
            SshPublicKey(value="-----BEGIN PUBLIC KEY-----\r\nMCow\r\n-----END PUBLIC KEY-----"),
        ),
        user_data=b"#!/bin/sh\n\x00\xff",
        has_custom_data=True,
        pps_type=None,
    )


@pytest.mark.parametrize("absent", [None, ""])
def test_absent_null_and_empty_are_none(absent: str | None) -> None:
    profile = dict.fromkeys(("adminUsername", "computerName", "disablePasswordAuthentication"), absent)
    compute = {"vmId": absent, "userData": absent, "publicKeys": None, "osProfile": profile}
    extended = {"hasCustomData": absent, "ppsType": absent}
    assert parse_instance(instance(compute, extended)) == InstanceMetadata(asks_nothing=True)
    assert parse_instance(instance()) == InstanceMetadata()
    assert parse_instance(b'{"compute": {"osProfile": null}, "extended": null}') == InstanceMetadata()


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("true", True),
        ("false", False),
        ("True", True),
        ("FALSE", False),
        (True, True),
        (False, False),
        (" true ", True),
    ],
)
def test_boolean_may_be_a_string(sent: object, value: bool) -> None:
    metadata = parse_instance(instance({"osProfile": {"disablePasswordAuthentication": sent}}, {"hasCustomData": sent}))
    assert metadata.disable_password_authentication is value
    assert metadata.has_custom_data is value


def test_pooled_vm_names_its_type() -> None:
    assert parse_instance(instance(extended={"ppsType": "Running"})).pps_type == "Running"


def test_answer_of_the_largest_size_is_read() -> None:
    assert parse_instance(INSTANCE + b" " * (MAX_BYTES - len(INSTANCE))) == parse_instance(INSTANCE)


@pytest.mark.parametrize("head", ["", "\N{BYTE ORDER MARK}", "\r\n"])
def test_byte_order_mark_and_white_space_are_accepted(head: str) -> None:
    assert parse_instance(head.encode() + INSTANCE) == parse_instance(INSTANCE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"compute"',
        b"<html>",
        INSTANCE[:-3],
        INSTANCE[: len(INSTANCE) // 2],
        INSTANCE + b"{}",
        b'{"compute": {"vmId": "\xff"}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"compute": ' + b"9" * 5000 + b"}",
        INSTANCE + b" " * (MAX_BYTES - len(INSTANCE) + 1),
    ],
)
def test_what_is_no_json_object_is_a_parse_error(data: bytes) -> None:
    assert refusal(data).reason is Reason.IMDS_PARSE


@pytest.mark.parametrize(
    ("compute", "extended", "key"),
    [
        ([1], None, "compute"),
        ({"osProfile": []}, None, "compute.osProfile"),
        ({"osProfile": "x"}, None, "compute.osProfile"),
        ({"osProfile": {"adminUsername": 1}}, None, "compute.osProfile.adminUsername"),
        ({"osProfile": {"computerName": ["a"]}}, None, "compute.osProfile.computerName"),
        ({"osProfile": {"computerName": "\ud800"}}, None, "compute.osProfile.computerName"),
        ({"osProfile": {DISABLE_PASSWORD: "yes"}}, None, f"compute.osProfile.{DISABLE_PASSWORD}"),
        ({"osProfile": {DISABLE_PASSWORD: 1}}, None, f"compute.osProfile.{DISABLE_PASSWORD}"),
        ({"vmId": 7}, None, "compute.vmId"),
        ({"vmId": "7"}, None, "compute.vmId"),
        ({"vmId": "02aab8a4-74ef-476e-8182-f6d2ba4166a6\n/../x"}, None, "compute.vmId"),
        ({"userData": "a"}, None, "compute.userData"),
        ({"userData": "{}"}, None, "compute.userData"),
        ({"userData": {}}, None, "compute.userData"),
        ({"publicKeys": {}}, None, "compute.publicKeys"),
        ({"publicKeys": ["ssh-rsa"]}, None, "compute.publicKeys[0]"),
        ({"publicKeys": [{"keyData": "a", "path": 5}]}, None, "compute.publicKeys[0].path"),
        (None, [], "extended.compute"),
        (None, {"hasCustomData": "1"}, "extended.compute.hasCustomData"),
        (None, {"ppsType": False}, "extended.compute.ppsType"),
    ],
)  # fmt: skip
def test_value_that_cannot_be_used_is_named_by_its_key(compute: object, extended: object, key: str) -> None:
    error = refusal(instance(compute, extended))
    assert error.reason is Reason.IMDS_INVALID
    assert error.data["key"] == key


def test_an_empty_key_is_passed_over_and_named() -> None:
    keys = [{"keyData": None, "path": "/p"}, {"keyData": "", "path": ""}, {"keyData": "a"}]
    found = parse_instance(instance({"publicKeys": keys}))
    assert found.ssh_public_keys == (SshPublicKey(value="a"),)
    assert found.passed_over == ("key 0 for /p of IMDS is empty", "key 1 of IMDS is empty")


@pytest.mark.parametrize(
    ("compute", "asks_nothing"),
    [
        ({"osProfile": {"adminUsername": "", "computerName": "", "disablePasswordAuthentication": ""}}, True),
        ({"osProfile": {}, "publicKeys": []}, True),
        ({"name": "the old api-version has no osProfile"}, False),
        ({"osProfile": {"computerName": "vm"}}, False),
        ({"osProfile": {"computerName": "web_01"}}, False),
        ({"osProfile": {}, "publicKeys": [{"keyData": "a"}]}, False),
        ({"osProfile": 1}, False),
    ],
)
def test_an_empty_profile_asks_for_nothing(compute: object, asks_nothing: bool) -> None:
    assert parse_instance(instance(compute)).asks_nothing is asks_nothing


@pytest.mark.parametrize("data", [b"{}", b'{"compute": null}', b'{"compute": {}}', b'{"network": {"interface": []}}'])
def test_answer_without_compute_is_not_taken_for_an_empty_vm(data: bytes) -> None:
    error = refusal(data)
    assert (error.reason, error.data["key"]) == (Reason.IMDS_INVALID, "compute")


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ({"computerName": "web_01"}, Reason.INVALID_HOSTNAME),
        ({"adminUsername": "-rf"}, Reason.INVALID_USERNAME),
    ],
)
def test_name_that_cannot_be_used_has_its_own_reason(profile: object, reason: Reason) -> None:
    assert refusal(instance({"osProfile": profile})).reason is reason


@pytest.mark.parametrize(
    "data",
    [
        b'{"compute":[' + b"[]," * (MAX_BYTES // 3 - 10) + b"[]]}",
        b'{"compute":{' + b",".join(b'"%x":{}' % i for i in range(MAX_BYTES // 12)) + b"}}",
        b'{"compute":[' + b"1.5," * (MAX_BYTES // 4 - 10) + b"1]}",
        b'{"compute":{"vmId":"' + b"\\u00e9" * (MAX_BYTES // 6 - 10) + b'"}}',
    ],
    ids=["arrays", "objects", "numbers", "escapes"],
)
def test_intricate_answer_costs_little(data: bytes) -> None:
    assert len(data) <= MAX_BYTES
    seconds, peak = cost(parse_instance, data)
    assert seconds < 5
    assert peak < 48 * MIB


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda item: st.lists(item, max_size=3) | st.dictionaries(st.text(max_size=3), item, max_size=3),
    max_leaves=5,
)


def holes(value: object) -> st.SearchStrategy[object]:
    """Return documents shaped like `value` in which any part may be any JSON."""
    if isinstance(value, dict):
        return JSON | st.fixed_dictionaries({key: holes(item) for key, item in value.items()})
    if isinstance(value, list):
        return JSON | st.tuples(*map(holes, value)).map(list)
    return st.just(value) | JSON


USED = {
    "compute": {key: json.loads(INSTANCE)["compute"][key] for key in ("osProfile", "publicKeys", "userData", "vmId")},
    "extended": json.loads(INSTANCE)["extended"],
}


@given(st.binary() | holes(USED).map(lambda document: json.dumps(document).encode()))
def test_any_bytes_are_a_value_or_a_provisioning_error(data: bytes) -> None:
    try:
        metadata = parse_instance(data)
    except ProvisioningError as error:
        assert error.reason.name.startswith(("IMDS_", "INVALID_"))
        str(error).encode()
    else:
        repr(metadata).encode()
