"""What an answer of IMDS, the instance metadata service, says of this VM. The requests are in `sources.imds`.

Pure. `parse_instance` reads the few values minprov uses, by key, and leaves the rest of the document alone: absent,
null and empty are all None. A value of the wrong type or form is a fault of its property alone, and names its key.

Fields: https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
"""

from __future__ import annotations

import binascii
import json
import re
from functools import partial
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason, excerpt
from minprov.formats.names import parse_hostname, parse_username
from minprov.model import Faults, InstanceMetadata, SshPublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BYTES = 1024 * 1024  # a real answer has 3 to 100 KiB, most of it userData
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
BOOLEANS = {"true": True, "false": False}


def parse_instance(data: bytes) -> InstanceMetadata:
    """Return what an answer to `INSTANCE_PATH` or `FALLBACK_INSTANCE_PATH` says of this VM.

    Raises:
        ProvisioningError: IMDS_PARSE if it is no JSON object, IMDS_INVALID without a `compute` object, or where it does
            not say whether the VM is one of a pool.
    """
    root = _Section(_parse_object(data), "")
    compute = root.section("compute")
    if compute.is_empty():
        raise ProvisioningError(Reason.IMDS_INVALID, key="compute", detail="missing or empty")
    extended = root.section("extended").section("compute")
    faults = Faults()
    passed_over: list[str] = []
    profile = faults.value("username", lambda: compute.section("osProfile")) or _Section({}, "compute.osProfile.")
    computer_name = faults.value("hostname", lambda: _name(profile, "computerName", parse_hostname))
    admin_username = faults.value("username", lambda: _name(profile, "adminUsername", parse_username))
    keys = tuple(_public_keys(compute, faults, passed_over))
    return InstanceMetadata(
        vm_id=faults.value("vm_id", lambda: _vm_id(compute)),
        computer_name=computer_name,
        admin_username=admin_username,
        disable_password_authentication=faults.value(
            "disable_ssh_password_authentication", lambda: profile.boolean("disablePasswordAuthentication")
        ),
        ssh_public_keys=keys,
        user_data=faults.value("user_data", lambda: _user_data(compute)),
        has_custom_data=faults.value("has_custom_data", lambda: extended.boolean("hasCustomData")),
        pps_type=_pps_type(extended),
        asks_nothing=compute.has("osProfile") and not (computer_name or admin_username or keys or faults),
        faults=faults,
        passed_over=tuple(passed_over),
    )


def _parse_object(data: bytes) -> dict[str, object]:
    if len(data) > MAX_BYTES:
        raise ProvisioningError(Reason.IMDS_PARSE, detail=f"longer than {MAX_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, a number or nesting beyond Python's limits
        raise ProvisioningError(Reason.IMDS_PARSE, detail=error) from error
    if not isinstance(document, dict):
        raise ProvisioningError(Reason.IMDS_PARSE, detail="not a JSON object")
    return document


def _vm_id(compute: _Section) -> str | None:
    text = compute.text("vmId")
    if text is not None and not re.fullmatch(UUID, text := text.lower()):
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


def _name(profile: _Section, key: str, parse: Callable[[str], str]) -> str | None:
    text = profile.text(key)
    return None if text is None else parse(text)


def _public_keys(compute: _Section, faults: Faults, passed_over: list[str]) -> Iterator[SshPublicKey]:
    for index, section in enumerate(
        faults.value("ssh_public_keys", lambda: list(compute.sections("publicKeys"))) or ()
    ):
        key = faults.value("ssh_public_keys", partial(_public_key, section))
        if key and key.value is None:
            where = f" for {excerpt(key.path)}" if key.path else ""
            passed_over.append(f"key {index}{where} of IMDS is empty")
        elif key:
            yield key


def _public_key(section: _Section) -> SshPublicKey:
    return SshPublicKey(value=section.text("keyData"), path=section.text("path"))


class _Section:
    """A JSON object looked at by key."""

    __slots__ = ("_path", "_value")

    def __init__(self, value: dict[str, object], path: str) -> None:
        self._value = value
        self._path = path

    def is_empty(self) -> bool:
        return not self._value

    def has(self, name: str) -> bool:
        return self._value.get(name) is not None

    def error(self, name: str, problem: str, value: str | None = None) -> ProvisioningError:
        shown = None if value is None else excerpt(value)
        return ProvisioningError(Reason.IMDS_INVALID, key=self._path + name, detail=problem, value=shown)

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
