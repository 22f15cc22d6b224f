"""Fetch what the VM's goal state has in certificates, and keep each in a file named by its thumbprint.

Those are what was asked for when the VM was created (`osProfile.secrets`), and the tenant's own. They are looked for at
every boot, as a later goal state may have others; what changes between two boots is the Key Vault extension's job.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import stat
import time
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from minprov import __version__
from minprov.duties.certificates.contents import Contents, files_of, keys_without_certificate, ssh_keys_of
from minprov.duties.certificates.key_pairs import Pairs, put_key_pairs, remove_key_pairs
from minprov.duties.certificates.libcrypto import LibCrypto
from minprov.duties.certificates.openssl_tool import OpensslTool
from minprov.duties.certificates.settings import Options
from minprov.errors import ProvisioningError, Reason
from minprov.formats.xml_document import parse_document
from minprov.gather import open_transport
from minprov.limits import CERTIFICATES_LIMIT
from minprov.machine.duty_record import path_of, read_record, shown_error, write_record
from minprov.machine.files import file_error
from minprov.machine.system import System
from minprov.network.retry import AttemptFailed, retry
from minprov.network.transport import Transport
from minprov.outcome.timeline import Timeline
from minprov.wire import GOAL_STATE_PATH, HEADERS, WIRESERVER

logger = logging.getLogger(__name__)

SCHEMA = "minprov/certificates/1"
PROGRAM = "certificates"
CIPHERS = ("AES128_CBC", "DES_EDE3_CBC")
FORMAT = "Pkcs7BlobWithPfxContents"
MODE = 0o600

Crypto: TypeAlias = LibCrypto | OpensslTool


async def run(options: Options, base_url: str, state_dir: str, vm_id: str | None, *, dry_run: bool) -> dict[str, Any]:
    """Fetch them and write what is not there; return what came of it as a document without any secret.

    Raises:
        ProvisioningError: of WireServer, CERTIFICATES_UNREADABLE, TOOL_NOT_FOUND, WRITE_FAILED.

    """
    try:
        return await _run(options, base_url, state_dir, vm_id, dry_run=dry_run)
    except ProvisioningError as error:
        if not dry_run:
            system, path = System(), path_of(state_dir, PROGRAM)
            failed = {"schema": SCHEMA, "version": __version__, "error": shown_error(error)}
            with suppress(ProvisioningError):
                # What an earlier one has written stays on record, and whose it is.
                await write_record(system, path, read_record(system, path) | failed)
        raise


async def _run(options: Options, base_url: str, state_dir: str, vm_id: str | None, *, dry_run: bool) -> dict[str, Any]:
    system = System(look_only=dry_run)
    contents = await _fetch_contents(base_url)
    wanted = dict(files_of(contents))
    missing = [name for name, file in wanted.items() if not _holds(system, f"{options.directory}/{name}", file)]
    pairs = Pairs()
    if not dry_run:
        await _remove_foreign(system, options.directory, state_dir, vm_id)
        await _write(system, options.directory, {name: wanted[name] for name in missing})
    if options.key_pairs:
        pairs = await put_key_pairs(system, state_dir, contents, wanted, dry_run=dry_run)
    if not dry_run:
        record: dict[str, Any] = {"schema": SCHEMA, "version": __version__, "vm_id": vm_id, "error": None}
        record |= {"files": sorted(wanted), "user": pairs.user, "key_pairs": pairs.digests}
        await write_record(system, path_of(state_dir, PROGRAM), record)
    if pairs.error:
        raise pairs.error
    if nameless := keys_without_certificate(contents):
        logger.warning("%d keys have no certificate, and so no name: passed over", nameless)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "directory": options.directory,
        "files": {
            name: ("planned" if dry_run else "changed") if name in missing else "unchanged" for name in sorted(wanted)
        },
        "keys_without_certificate": nameless,
        "key_pairs": pairs.states,
    }


async def fetch_public_keys(base_url: str) -> dict[str, Any]:
    """Return the public key of each certificate, by its thumbprint, and the error if there is one; write nothing."""
    try:
        return {"public_keys": ssh_keys_of(await _fetch_contents(base_url)), "error": None}
    except ProvisioningError as error:
        return {"public_keys": {}, "error": shown_error(error)}


async def make_crypto() -> Crypto:
    """Return what opens envelopes: the library, or else the tool; a key is made for it, which takes 0.1 s."""
    try:
        return await asyncio.to_thread(LibCrypto)
    except (OSError, AttributeError, ImportError, MemoryError, ProvisioningError) as error:
        logger.info("libcrypto cannot be used: %s", error)
        return OpensslTool()


async def _fetch_contents(base_url: str) -> Contents:
    deadline = time.monotonic() + CERTIFICATES_LIMIT
    async with open_transport(Timeline()) as transport:
        return await _fetch(transport, base_url, deadline)


async def _fetch(transport: Transport, base_url: str, deadline: float) -> Contents:
    async def get(url: str, headers: dict[str, str]) -> bytes:
        return await transport.attempt(WIRESERVER, "GET", url, headers=headers, deadline=deadline)

    goal_state = await retry(lambda: get(base_url + GOAL_STATE_PATH, HEADERS), deadline=deadline)
    path = find_certificates_path(goal_state)
    if path is None:
        return Contents((), ())
    crypto = await make_crypto()
    certificate = base64.b64encode(await crypto.certificate()).decode()

    async def ask() -> Contents:
        """Ask by each cipher: one may be refused, or not be known to the library."""
        for cipher in CIPHERS:
            headers = {"x-ms-cipher-name": cipher, "x-ms-guest-agent-public-x509-cert": certificate}
            try:
                envelope = parse_envelope(await get(base_url + path, HEADERS | headers))
                return await crypto.open(envelope) if envelope else Contents((), ())
            except (AttemptFailed, ProvisioningError) as error:
                logger.info("certificates by %s: %s", cipher, error)
                unanswered = isinstance(error, AttemptFailed) and error.status is None
                if unanswered or cipher == CIPHERS[-1]:
                    raise
        raise AssertionError

    return await retry(ask, deadline=deadline)


def find_certificates_path(goal_state: bytes) -> str | None:
    """Return the path and query of the VM's certificates on WireServer, whatever host the document names."""
    root = parse_document(goal_state, "", malformed=Reason.GOAL_STATE_INVALID, invalid=Reason.GOAL_STATE_INVALID)
    for instance in root.optional("Container").optional("RoleInstanceList").children("RoleInstance"):
        url = instance.optional("Configuration").optional("Certificates").text()
        parts = urlsplit(url or "")
        if parts.path.startswith("/"):
            return f"{parts.path}?{parts.query}" if parts.query else parts.path
    return None


def parse_envelope(document: bytes) -> bytes | None:
    """Return the envelope in a document of certificates, or None where it is empty.

    Raises:
        ProvisioningError: CERTIFICATES_UNREADABLE.

    """
    reason = Reason.CERTIFICATES_UNREADABLE
    root = parse_document(document, "", malformed=reason, invalid=reason)
    if (kind := root.optional("Format").text()) not in (None, FORMAT):
        raise ProvisioningError(reason, format=(kind or "")[:40])
    text = root.optional("Data").text()
    try:
        return base64.b64decode("".join(text.split()), validate=True) if text else None
    except (binascii.Error, ValueError) as error:
        raise ProvisioningError(reason, detail="its base64 is damaged") from error


def _holds(system: System, path: str, contents: bytes) -> bool:
    return system.read(path) == contents and stat.S_IMODE(os.stat(system.path(path)).st_mode) == MODE


async def _write(system: System, directory: str, files: dict[str, bytes]) -> None:
    try:
        with system.directory(directory, make=0o700):
            pass
    except OSError as error:
        raise file_error(error, directory) from error
    for name, contents in files.items():
        path = f"{directory}/{name}"
        await system.replace_own(path, contents, mode=MODE)
        if not _holds(system, path, contents):
            raise ProvisioningError(Reason.READ_BACK, property="certificates", target=path)


async def _remove_foreign(system: System, directory: str, state_dir: str, vm_id: str | None) -> None:
    """Remove what a captured disk brings along of its first VM's keys."""
    record = read_record(system, path_of(state_dir, PROGRAM))
    if record.get("vm_id") == vm_id:
        return
    for name in record.get("files", ()):
        await system.remove_own(f"{directory}/{os.path.basename(str(name))}")
    await remove_key_pairs(system, record.get("user"), record.get("key_pairs", {}))
