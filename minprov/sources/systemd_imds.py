"""IMDS as systemd 261 passes it on, where it has reserved the service's address for itself.

Its early network then has a prohibit route, which a connection meets with EACCES at once. systemd-imdsd answers by
Varlink (https://varlink.org/Interface-Definition): one JSON object and a NUL byte, each way. The interface is in
src/shared/varlink-io.systemd.InstanceMetadata.c. It knows no `extended`, so whether there is customData stays unknown.
"""

from __future__ import annotations

import asyncio
import binascii
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from minprov.errors import ProvisioningError, Reason
from minprov.imds import parse_instance
from minprov.limits import IMDSD_LIMIT

if TYPE_CHECKING:
    from minprov.model import InstanceMetadata

logger = logging.getLogger(__name__)

SOCKET = "/run/systemd/io.systemd.InstanceMetadata"
INTERFACE = "io.systemd.InstanceMetadata"
MAX_ANSWER = 1 << 20
MAX_KEYS = 100
PROFILE = ("computerName", "adminUsername", "disablePasswordAuthentication")


async def fetch_from_systemd(*, deadline: float) -> InstanceMetadata:
    """Return what systemd-imdsd says of this VM.

    Raises:
        ProvisioningError: IMDS_RESERVED where it does not answer; as `parse_instance`.

    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(min(deadline, loop.time() + IMDSD_LIMIT)):
            reader, writer = await asyncio.open_unix_connection(SOCKET, limit=MAX_ANSWER)
            logger.info("IMDS is reserved by systemd: systemd-imdsd is asked in its place")
            try:
                return parse_instance(json.dumps({"compute": await _compute(reader, writer)}).encode())
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError) as error:
        detail = str(error) or f"no answer in {IMDSD_LIMIT:g} s"
        raise ProvisioningError(Reason.IMDS_RESERVED, socket=SOCKET, detail=detail) from error


async def _compute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, Any]:
    """Return the part of an instance document that minprov reads, asked for key by key."""

    async def get(key: str) -> str | None:
        return await _get(reader, writer, f"/instance/compute/{key}")

    keys: list[dict[str, str | None]] = []
    while len(keys) < MAX_KEYS and (key := await get(f"publicKeys/{len(keys)}/keyData")):
        keys.append({"keyData": key, "path": await get(f"publicKeys/{len(keys)}/path")})
    return {
        "vmId": await get("vmId"),
        "osProfile": {name: await get(f"osProfile/{name}") for name in PROFILE},
        "publicKeys": keys,
        "userData": await get("userData"),
    }


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> str | None:
    """Return the value of a key, or None where there is none; raises ValueError for any other answer."""
    call = {"method": f"{INTERFACE}.Get", "parameters": {"key": key}}
    writer.write(json.dumps(call).encode() + b"\0")
    await writer.drain()
    answer = json.loads((await reader.readuntil(b"\0"))[:-1])
    if not isinstance(answer, dict):
        raise ValueError("an answer that is no Varlink")
    if error := answer.get("error"):
        if error == f"{INTERFACE}.KeyNotFound":
            return None
        raise ValueError(f"{key}: {error}")
    with suppress(AttributeError, KeyError, TypeError, binascii.Error):
        return binascii.a2b_base64(answer["parameters"]["data"], strict_mode=True).decode() or None
    raise ValueError("an answer without data")
