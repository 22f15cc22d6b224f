"""IMDS, the instance metadata service: which request to make, and what the answer says of this VM.

`parse_instance` is pure. It reads the few values minprov uses, by key, and leaves the rest of the document alone:
absent, null and empty are all None, and a value of the wrong type or form is an error that names its key.

Fields and status codes: https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
"""

from __future__ import annotations

import binascii
import json
import re
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason, excerpt
from minprov.model import InstanceMetadata, SshPublicKey
from minprov.names import parse_hostname, parse_username
from minprov.retry import AttemptFailed, Endpoint, retry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.transport import Transport

ENDPOINT = "http://169.254.169.254"
HEADERS = {"Metadata": "true"}
# extended=true marks a provisioning read: without it the service may answer 200 with part of the data (azure-init#134).
INSTANCE_PATH = "/metadata/instance?api-version=2021-08-01&extended=true"
# For a platform that answers 400 to that version (Azure Stack), as cloud-init does. It has no names of host and user.
FALLBACK_INSTANCE_PATH = "/metadata/instance?api-version=2019-06-01"
REFUSALS_BEFORE_FALLBACK = 3

MAX_BYTES = 1024 * 1024  # a real answer has 3 to 100 KiB, most of it userData
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
BOOLEANS = {"true": True, "false": False}

# The documentation's "Errors and debugging"; 404 is not among them, since at first boot it also means "not yet", and
# nor is 400, which Microsoft advises to retry (azure-init#63).
FINAL_STATUSES = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED})
UNCHANGING_FAULTS = frozenset({Reason.INVALID_HOSTNAME, Reason.INVALID_USERNAME})
GONE_LIMIT = 70.0  # seconds for which the documentation says to retry a 410
IMDS = Endpoint(
    name="IMDS",
    connection_failed=Reason.IMDS_CONNECTION,
    connect_timed_out=Reason.IMDS_CONNECT_TIMEOUT,
    read_timed_out=Reason.IMDS_READ_TIMEOUT,
    refused=Reason.IMDS_HTTP,
    final_statuses=FINAL_STATUSES,
)


def parse_instance(data: bytes) -> InstanceMetadata:
    """Return what an answer to `INSTANCE_PATH` or `FALLBACK_INSTANCE_PATH` says of this VM.

    Raises:
        ProvisioningError: IMDS_PARSE if it is no JSON object, IMDS_INVALID with the key of a value that cannot be used,
            INVALID_HOSTNAME, INVALID_USERNAME.
    """
    root = _Section(_parse_object(data), "")
    compute = root.section("compute")
    if compute.is_empty():
        raise ProvisioningError(Reason.IMDS_INVALID, key="compute", problem="missing or empty")
    profile = compute.section("osProfile")
    extended = root.section("extended").section("compute")
    computer_name = profile.text("computerName")
    admin_username = profile.text("adminUsername")
    return InstanceMetadata(
        vm_id=_vm_id(compute),
        computer_name=None if computer_name is None else parse_hostname(computer_name),
        admin_username=None if admin_username is None else parse_username(admin_username),
        disable_password_authentication=profile.boolean("disablePasswordAuthentication"),
        ssh_public_keys=tuple(_public_keys(compute)),
        user_data=_user_data(compute),
        has_custom_data=extended.boolean("hasCustomData"),
        pps_type=_pps_type(extended),
    )


async def fetch_instance(transport: Transport, base_url: str, *, deadline: float) -> InstanceMetadata:
    """Return what IMDS says of this VM.

    A 400 may mean that the service does not know the api-version, and it may be a stray one: so the older version has a
    turn after every three of them, and its answer, which lacks names, counts only if the newer one is refused again.

    Raises:
        ProvisioningError: the last attempt's, when none succeeds before the deadline or one is refused for good.
    """
    refusals = 0
    gone_since: float | None = None

    async def request(path: str) -> InstanceMetadata:
        return parse_instance(await transport.attempt(IMDS, "GET", base_url + path, headers=HEADERS, deadline=deadline))

    async def ask() -> InstanceMetadata:
        nonlocal refusals, gone_since
        try:
            if refusals % (REFUSALS_BEFORE_FALLBACK + 1) != REFUSALS_BEFORE_FALLBACK:
                return await request(INSTANCE_PATH)
            older = await request(FALLBACK_INSTANCE_PATH)
            with suppress(AttemptFailed, ProvisioningError):
                return await request(INSTANCE_PATH)
            return older
        except AttemptFailed as refusal:
            refusals += refusal.status == HTTPStatus.BAD_REQUEST
            if refusal.status == HTTPStatus.GONE:
                gone_since = gone_since or time.monotonic()
                refusal.final = time.monotonic() - gone_since > GONE_LIMIT
            raise
        except ProvisioningError as error:
            # Empty and truncated answers with status 200 have been seen to be followed by good ones; not so names that
            # break a rule, which are what the VM was created with.
            raise AttemptFailed(error, final=error.reason in UNCHANGING_FAULTS) from error

    return await retry(ask, deadline=deadline)


def _parse_object(data: bytes) -> dict[str, object]:
    if len(data) > MAX_BYTES:
        raise ProvisioningError(Reason.IMDS_PARSE, problem=f"longer than {MAX_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, a number or nesting beyond Python's limits
        raise ProvisioningError(Reason.IMDS_PARSE, problem=error) from error
    if not isinstance(document, dict):
        raise ProvisioningError(Reason.IMDS_PARSE, problem="not a JSON object")
    return document


def _vm_id(compute: _Section) -> str | None:
    text = compute.text("vmId")
    if text is not None and not UUID.fullmatch(text := text.lower()):
        raise compute.error("vmId", "must be a UUID", text)
    return text


def _user_data(compute: _Section) -> bytes | None:
    try:
        return binascii.a2b_base64("".join((compute.text("userData") or "").split()), strict_mode=True) or None
    except ValueError as error:
        raise compute.error("userData", "must be base64") from error


def _pps_type(extended: _Section) -> str | None:
    text = extended.text("ppsType")
    return None if text == "None" else text  # a member of the platform's enumeration: an ordinary VM


def _public_keys(compute: _Section) -> Iterator[SshPublicKey]:
    for key in compute.sections("publicKeys"):
        value = key.text("keyData")
        if value is None:
            raise key.error("keyData", "missing or empty")
        yield SshPublicKey(value=value, path=key.text("path"))


class _Section:
    """A JSON object looked at by key."""

    __slots__ = ("_path", "_value")

    def __init__(self, value: dict[str, object], path: str) -> None:
        self._value = value
        self._path = path

    def is_empty(self) -> bool:
        return not self._value

    def error(self, name: str, problem: str, value: str | None = None) -> ProvisioningError:
        shown = None if value is None else excerpt(value)
        return ProvisioningError(Reason.IMDS_INVALID, key=self._path + name, problem=problem, value=shown)

    def section(self, name: str) -> _Section:
        value = self._value.get(name)
        if not isinstance(value, dict | None):
            raise self.error(name, "must be an object")
        return _Section(value or {}, f"{self._path}{name}.")

    def sections(self, name: str) -> Iterator[_Section]:
        value = self._value.get(name)
        if not isinstance(value, list | None):
            raise self.error(name, "must be an array")
        for index, item in enumerate(value or ()):
            if not isinstance(item, dict):
                raise self.error(f"{name}[{index}]", "must be an object")
            yield _Section(item, f"{self._path}{name}[{index}].")

    def text(self, name: str) -> str | None:
        value = self._value.get(name)
        if not isinstance(value, str | None):
            raise self.error(name, "must be a string")
        if value and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:  # JSON can escape half a character
                raise self.error(name, "must be Unicode") from error
        return value.strip() or None if value else None

    def boolean(self, name: str) -> bool | None:
        value = self._value.get(name)
        if isinstance(value, bool):
            return value
        text = self.text(name)  # the service sends booleans as strings
        if text is None:
            return None
        if text.lower() not in BOOLEANS:
            raise self.error(name, "must be true or false", text)
        return BOOLEANS[text.lower()]
