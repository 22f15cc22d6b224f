"""The ovf-env: the document on the provisioning media that says what this VM is to be.

Pure: bytes in, `OvfEnv` out, or the same bytes without the password. The strategy: walk the two sections by name,
validate every value where it is read, and refuse what is ambiguous (a repeated element) rather than choose. A value
that cannot be used is a fault of its property alone, which may be one that nobody wants.

There is no published schema. Names and meanings are those of WALinuxAgent (`ovfenv.py`), cloud-init (OvfEnvXml in
`sources/helpers/azure.py`) and azure-init (`libazureinit/src/media.rs`); a comment says where they differ.
"""

from __future__ import annotations

import binascii
import re
from functools import partial
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason, excerpt
from minprov.formats.names import parse_hostname, parse_username
from minprov.formats.xml_document import Node, feed, new_parser, parse_document
from minprov.model import Faults, OvfEnv, Secret, SshPublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AZURE_NAMESPACE = "http://schemas.microsoft.com/windowsazure"

# Linux sets have UserPassword; afterburn reads the Windows set's name, in both spellings, from Linux sets as well.
PASSWORD_ELEMENTS = ("UserPassword", "AdminPassword", "adminPassword")
ANY_PASSWORD = {name.lower() for name in PASSWORD_ELEMENTS}
PASSWORD_MAX_BYTES = 511  # PAM_MAX_RESP_SIZE is 512 with the NUL: a longer one could be set but not typed
REDACTED = "REDACTED"  # cloud-init's word for a password taken out; WALinuxAgent writes asterisks

# Whoever made the document chose how long its tags are, so nothing here is looked at twice: no quantifier gives back
# what it took, and a run of blanks is one match, whether or not an attribute follows.
START_TAG = re.compile(rb"""<[^>"']*+(?:(?:"[^"]*+"|'[^']*+')[^>"']*+)*+>""")
ATTRIBUTE = re.compile(rb"""\s++(?:(?P<name>[^\s=>/]++)\s*+=\s*+(?:"[^"]*+"|'[^']*+'))?""")


def parse_ovf_env(data: bytes) -> OvfEnv:
    """Return what an ovf-env says.

    Raises:
        ProvisioningError: OVF_PARSE if it is no acceptable XML, OVF_FOREIGN if it is not Azure's, OVF_INVALID if it has
            not the sections that it should have, or does not say whether the VM is one of a pool.
    """
    environment = parse_document(
        _without_padding(data), AZURE_NAMESPACE, malformed=Reason.OVF_PARSE, invalid=Reason.OVF_INVALID
    )
    section = environment.child("ProvisioningSection")
    if section is None:
        raise ProvisioningError(Reason.OVF_FOREIGN, element="ProvisioningSection", detail="missing")
    linux = section.required("LinuxProvisioningConfigurationSet")
    platform = environment.optional("PlatformSettingsSection").optional("PlatformSettings")
    faults = Faults()
    passed_over: list[str] = []
    return OvfEnv(
        hostname=faults.value("hostname", lambda: _name(linux, "HostName", parse_hostname)),
        username=faults.value("username", lambda: _name(linux, "UserName", parse_username)),
        password=faults.value("password", lambda: _password(linux.optional(*PASSWORD_ELEMENTS))),
        custom_data=faults.value("custom_data", lambda: _custom_data(linux.optional("CustomData"))),
        disable_ssh_password_authentication=faults.value(
            "disable_ssh_password_authentication",
            lambda: linux.optional("DisableSshPasswordAuthentication").boolean(),
        ),
        ssh_public_keys=tuple(_public_keys(linux, faults, passed_over)),
        preprovisioned_vm=platform.optional("PreprovisionedVm").boolean() or False,
        preprovisioned_vm_type=_pool_type(platform.optional("PreprovisionedVMType", "PreprovisionedVmType")),
        provision_guest_proxy_agent=platform.optional("ProvisionGuestProxyAgent").boolean() or False,
        provision_guest_agent=faults.value(
            "provision_guest_agent", lambda: platform.optional("ProvisionGuestAgent").boolean()
        ),
        faults=faults,
        passed_over=tuple(passed_over),
    )


def redact(data: bytes) -> bytes:
    """Return the ovf-env, without padding, with `REDACTED` for every password, however written, and all else as it was.

    Raises:
        ProvisioningError: OVF_PARSE if it is no acceptable XML: what cannot be read cannot be redacted.
    """
    data = _without_padding(data)
    passwords = _PasswordElements()
    feed(passwords.parser, data, Reason.OVF_PARSE)
    pieces: list[bytes] = []
    kept = 0
    for start, end in passwords.spans:
        tag = next(START_TAG.finditer(data, start))
        has_content = end > tag.end()
        pieces += data[kept:start], ATTRIBUTE.sub(_namespace_only, tag[0]), REDACTED.encode() if has_content else b""
        kept = end
    return b"".join((*pieces, data[kept:]))


def _without_padding(data: bytes) -> bytes:
    """Return the document without what tools that fill a disc's blocks leave around it; XML allows neither."""
    return data.lstrip(b" \t\r\n").rstrip(b"\0")


def _namespace_only(attribute: re.Match[bytes]) -> bytes:
    name: bytes | None = attribute["name"]
    return attribute[0] if name is None or name.partition(b":")[0] == b"xmlns" else b""


class _PasswordElements:
    """A parser's target that notes where each password element begins and where its content ends."""

    def __init__(self) -> None:
        self.parser = new_parser(self)
        self.spans: list[tuple[int, int]] = []
        self._depth = 0
        self._start = 0

    def start(self, tag: str, _attributes: dict[str, str]) -> None:
        if self._depth or tag.rpartition("}")[2].lower() in ANY_PASSWORD:
            if not self._depth:
                self._start = self.parser.parser.CurrentByteIndex
            self._depth += 1

    def end(self, _tag: str) -> None:
        if self._depth:
            self._depth -= 1
            if not self._depth:
                self.spans.append((self._start, self.parser.parser.CurrentByteIndex))

    def close(self) -> None:
        pass


def _password(element: Node) -> Secret | None:
    password = element.raw_text()
    if password == REDACTED or not password.strip("* \t\r\n"):
        return None
    problem = None
    if "\n" in password or "\r" in password:  # XML itself rules out NUL
        problem = "must not contain a line break"
    elif len(password.encode()) > PASSWORD_MAX_BYTES:
        problem = f"must have at most {PASSWORD_MAX_BYTES} bytes"
    if problem:
        raise ProvisioningError(Reason.INVALID_PASSWORD, detail=problem)
    return Secret(password)


def _custom_data(element: Node) -> bytes | None:
    try:
        # The base64 may be wrapped over lines. What it encodes is anybody's: no character set is assumed.
        return binascii.a2b_base64("".join(element.raw_text().split()), strict_mode=True) or None
    except ValueError as error:
        raise element.error("must be base64") from error


def _name(linux: Node, element: str, parse: Callable[[str], str]) -> str | None:
    text = linux.optional(element).text()
    return None if text is None else parse(text)


def _public_keys(linux: Node, faults: Faults, passed_over: list[str]) -> Iterator[SshPublicKey]:
    container = faults.value("ssh_public_keys", lambda: linux.optional("SSH").optional("PublicKeys"))
    for index, element in enumerate(container.children("PublicKey") if container else ()):
        key = faults.value("ssh_public_keys", partial(_public_key, element))
        if key and key.value is None and key.fingerprint is None:
            where = f" for {excerpt(key.path)}" if key.path else ""
            passed_over.append(f"key {index}{where} of the media is empty")
        elif key:
            yield key


def _public_key(element: Node) -> SshPublicKey:
    value, path, fingerprint = (element.optional(name).text() for name in ("Value", "Path", "Fingerprint"))
    return SshPublicKey(value=value, path=path, fingerprint=fingerprint)


def _pool_type(element: Node) -> str | None:
    text = element.text()
    return None if text == "None" else text  # a member of the platform's enumeration: an ordinary VM
