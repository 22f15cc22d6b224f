"""The ovf-env: the document on the provisioning media that says what this VM is to be.

Pure: bytes in, `OvfEnv` out, or the same bytes without the password. The strategy: walk the two sections by name,
validate every value where it is read, and refuse what is ambiguous (a repeated element) rather than choose.

There is no published schema. Names and meanings are those of WALinuxAgent (`ovfenv.py`), cloud-init (OvfEnvXml in
`sources/helpers/azure.py`) and azure-init (`libazureinit/src/media.rs`); a comment says where they differ.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason, excerpt
from minprov.formats.names import parse_hostname, parse_username
from minprov.formats.xml_document import Node, feed, new_parser, parse_document
from minprov.model import OvfEnv, Secret, SshPublicKey

if TYPE_CHECKING:
    from collections.abc import Iterator

AZURE_NAMESPACE = "http://schemas.microsoft.com/windowsazure"

# Linux sets have UserPassword; afterburn reads the Windows set's name, in both spellings, from Linux sets as well.
PASSWORD_ELEMENTS = ("UserPassword", "AdminPassword", "adminPassword")
ANY_PASSWORD = {name.lower() for name in PASSWORD_ELEMENTS}
PASSWORD_MAX_BYTES = 511  # PAM_MAX_RESP_SIZE is 512 with the NUL: a longer one could be set but not typed
REDACTED = "REDACTED"  # cloud-init's word for a password taken out; WALinuxAgent writes asterisks

START_TAG = re.compile(rb"""<[^>"']*(?:(?:"[^"]*"|'[^']*')[^>"']*)*>""")
ATTRIBUTE = re.compile(rb"""\s+(?P<name>[^\s=]+)\s*=\s*(?:"[^"]*"|'[^']*')""")


def parse_ovf_env(data: bytes) -> OvfEnv:
    """Return what an ovf-env says.

    Raises:
        ProvisioningError: OVF_PARSE if it is no acceptable XML, OVF_FOREIGN if it is not Azure's, else OVF_INVALID
            or the reason of the value that cannot be used.
    """
    environment = parse_document(data, AZURE_NAMESPACE, malformed=Reason.OVF_PARSE, invalid=Reason.OVF_INVALID)
    section = environment.child("ProvisioningSection")
    if section is None:
        raise ProvisioningError(Reason.OVF_FOREIGN, element="ProvisioningSection", detail="missing")
    linux = section.required("LinuxProvisioningConfigurationSet")
    platform = environment.optional("PlatformSettingsSection").optional("PlatformSettings")
    username = linux.optional("UserName").text()
    return OvfEnv(
        hostname=parse_hostname(linux.required("HostName").text() or ""),
        username=None if username is None else parse_username(username),
        password=_password(linux.optional(*PASSWORD_ELEMENTS)),
        custom_data=_custom_data(linux.optional("CustomData")),
        disable_ssh_password_authentication=linux.optional("DisableSshPasswordAuthentication").boolean(),
        ssh_public_keys=tuple(_public_keys(linux.optional("SSH").optional("PublicKeys"))),
        preprovisioned_vm=platform.optional("PreprovisionedVm").boolean() or False,
        preprovisioned_vm_type=_pool_type(platform.optional("PreprovisionedVMType", "PreprovisionedVmType")),
        provision_guest_proxy_agent=platform.optional("ProvisionGuestProxyAgent").boolean() or False,
        provision_guest_agent=platform.optional("ProvisionGuestAgent").boolean(),
    )


def redact(data: bytes) -> bytes:
    """Return the ovf-env with `REDACTED` for every password, in whatever way it was written, and all else as it was.

    Raises:
        ProvisioningError: OVF_PARSE if it is no acceptable XML: what cannot be read cannot be redacted.
    """
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


def _namespace_only(attribute: re.Match[bytes]) -> bytes:
    return attribute[0] if attribute["name"].partition(b":")[0] == b"xmlns" else b""


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


def _public_keys(container: Node) -> Iterator[SshPublicKey]:
    for index, element in enumerate(container.children("PublicKey")):
        value, path, fingerprint = (element.optional(name).text() for name in ("Value", "Path", "Fingerprint"))
        if value is None and fingerprint is None:
            raise element.error("has neither Value nor Fingerprint", index=index, path=path and excerpt(path))
        yield SshPublicKey(value=value, path=path, fingerprint=fingerprint)


def _pool_type(element: Node) -> str | None:
    text = element.text()
    return None if text == "None" else text  # a member of the platform's enumeration: an ordinary VM
