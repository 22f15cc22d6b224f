"""openssl(1), where the library cannot be loaded: each file is in this process's memory, none on a disk."""

from __future__ import annotations

import base64
import os
import re
from contextlib import ExitStack

from minprov.duties.certificates.contents import Contents, Item, encode_pem
from minprov.errors import ProvisioningError, Reason
from minprov.machine.tools import find_tool, run_tool

PEM = re.compile(r"-----BEGIN (CERTIFICATE|PRIVATE KEY)-----\s+([A-Za-z0-9+/=\s]+)-----END \1-----")
PUBLIC = re.compile(r"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----")
LIFETIME = "2"  # days


class OpensslTool:
    """A transport key, made anew, and what was enveloped for it."""

    def __init__(self) -> None:
        tool = find_tool("openssl")
        if tool is None:
            detail = "certificates need it, or libcrypto.so and Python's ctypes"
            raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="openssl", detail=detail)
        self._tool = tool
        self._key = self._certificate = ""

    async def certificate(self) -> bytes:
        """Return the certificate for which the platform envelopes, in DER."""
        self._key = await run_tool([self._tool, "genrsa", "2048"])
        with ExitStack() as stack:
            key = _in_memory(stack, self._key.encode())
            self._certificate = await run_tool(
                [self._tool, "req", "-x509", "-new", "-key", key, "-days", LIFETIME, "-subj", "/CN=LinuxTransport"]
            )
        return base64.b64decode(PEM.findall(self._certificate)[0][1])

    async def open(self, envelope: bytes) -> Contents:
        """Return what is in the PKCS #12 file in the envelope (CMS, DER).

        Raises:
            ProvisioningError: CERTIFICATES_UNREADABLE.

        """
        with ExitStack() as stack:
            key = _in_memory(stack, self._key.encode())
            certificate = _in_memory(stack, self._certificate.encode())
            sealed = _in_memory(stack, envelope)
            pfx = _in_memory(stack, b"")
            decrypt = ["cms", "-decrypt", "-inform", "DER", "-in", sealed, "-inkey", key, "-recip", certificate]
            await self._run([*decrypt, "-out", pfx])
            show = ["pkcs12", "-nodes", "-passin", "pass:", "-in", pfx]
            try:
                text = await self._run([*show, "-nomacver"])
            except ProvisioningError:
                text = await self._run([*show, "-nomacver", "-legacy"])
        items = [(label, base64.b64decode(body)) for label, body in PEM.findall(text)]
        certificates = [Item(der, await self._public("x509", label, der)) for label, der in items if label[0] == "C"]
        keys = [Item(der, await self._public("pkey", label, der)) for label, der in items if label[0] == "P"]
        return Contents(certificates, keys)

    async def _public(self, command: str, label: str, der: bytes) -> bytes:
        flags = ["-pubkey", "-noout"] if command == "x509" else ["-pubout"]
        text = await self._run([command, *flags], stdin=encode_pem(label, der))
        return base64.b64decode(PUBLIC.findall(text)[0])

    async def _run(self, arguments: list[str], stdin: bytes = b"") -> str:
        try:
            return await run_tool([self._tool, *arguments], stdin=stdin)
        except ProvisioningError as error:
            if error.reason is not Reason.TOOL_FAILED:
                raise
            raise ProvisioningError(Reason.CERTIFICATES_UNREADABLE, by=f"openssl {arguments[0]}") from error


def _in_memory(stack: ExitStack, contents: bytes) -> str:
    """Return the path of a file that is in memory and has the contents; the stack closes it."""
    descriptor = os.memfd_create("certificates", os.MFD_CLOEXEC)
    stack.callback(os.close, descriptor)
    os.write(descriptor, contents)
    return f"/proc/{os.getpid()}/fd/{descriptor}"
