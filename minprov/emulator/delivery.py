"""A reply on its way out, damaged as a fault step says.

Whole replies go through aiohttp, so that keep-alive and framing are as a server's should be. Broken ones are written
byte by byte onto the connection, which then ends: an HTTP library rightly refuses to send what these need.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import struct
from dataclasses import replace
from http.client import responses
from typing import TYPE_CHECKING

from aiohttp import web

from .exchange import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .faults import Step

_CHUNK = 65536


class _Severed(web.StreamResponse):
    """Tells aiohttp that the connection has been dealt with: nothing more is to be sent, and it ends."""

    async def prepare(self, request: web.BaseRequest) -> None:
        raise ConnectionResetError("the connection was ended by a fault script")


def edit(reply: Reply, step: Step) -> Reply:
    """Return the reply with the step's replacements in its body; one that finds nothing is an error in the script."""
    body = reply.body.decode()
    for old, new in step.replace.items():
        if old not in body:
            why = f"the fault script replaces {old!a}, which is not in the body"
            return Reply(status=500, content_type="text/plain", body=why.encode(), refusal=why)
        body = body.replace(old, new)
    return replace(reply, body=body.encode())


async def deliver(request: web.BaseRequest, reply: Reply, step: Step, stopping: asyncio.Event) -> web.StreamResponse:
    """Send a reply with the damage of a step; return when all of it that will ever be sent is on its way."""
    await _pause(step.delay, stopping)
    status = step.status or reply.status
    body = _body(reply, step)
    headers = {"Server": "minprov-emulator", "Content-Type": reply.content_type}
    if step.gzip:
        headers["Content-Encoding"] = "gzip"
    headers |= step.headers
    if step.endless is not None:
        await _send_endlessly(request, step.endless, stopping)
        return _Severed()
    if step.raw is None and step.drop is None and step.truncate is None:
        return await _send_whole(request, status, headers, body, step, stopping)

    if step.raw is not None:
        _write(request, step.raw)
    elif step.truncate is not None:
        body = b"".join(_pieces(body, step))
        _write(request, _head(status, headers, body, chunked=step.chunked) + body[: step.truncate])
    match step.drop:
        case "stall":
            await stopping.wait()
        case "reset":
            _reset(request)
    return _Severed()


async def _send_endlessly(request: web.BaseRequest, part: str, stopping: asyncio.Event) -> None:
    """Send a reply of which one part never ends, as fast as it is taken."""
    framing = b"" if part == "headers" else b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    _write(request, b"HTTP/1.1 200 OK\r\n" + framing)
    fields = (b"X-Filler: " + b"x" * 4000 + b"\r\n") * 16
    while request.transport and not request.transport.is_closing() and not stopping.is_set():
        if request.transport.get_write_buffer_size() < _CHUNK:
            _write(request, fields)
        await _pause(0.001, stopping)


def _body(reply: Reply, step: Step) -> bytes:
    """Return the body: the step's, else the platform's own unless the step changes the status."""
    if step.body is not None:
        body = step.body
    elif step.status is not None:
        body = b""
    else:
        body = reply.body
    return gzip.compress(body.ljust(step.pad)) if step.gzip else body


async def _send_whole(
    request: web.BaseRequest,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    step: Step,
    stopping: asyncio.Event,
) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers=headers)
    if step.chunked:
        response.enable_chunked_encoding()
    elif status not in {204, 304}:
        response.content_length = max(len(body), 0 if step.gzip else step.pad)
    try:
        await response.prepare(request)
        for index, piece in enumerate(_pieces(body, step) if request.method != "HEAD" else ()):
            if index and step.drip is not None:
                await _pause(step.drip, stopping)
            await response.write(piece)
        await response.write_eof()
    except ConnectionError:
        return _Severed()  # the guest has hung up, which is its right
    return response


def _pieces(body: bytes, step: Step) -> Iterator[bytes]:
    """Cut a body for the wire. Padding is blanks: a document stays well-formed, and only its size is at fault."""
    size = _CHUNK if step.drip is None else 1
    for start in range(0, len(body), size):
        yield body[start : start + size]
    if not step.gzip:
        for start in range(len(body), step.pad, size):
            yield b" " * min(size, step.pad - start)


def _head(status: int, headers: Mapping[str, str], body: bytes, *, chunked: bool) -> bytes:
    framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))}
    lines = [f"HTTP/1.1 {status} {responses.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in (framing | dict(headers)).items()]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head + b"%x\r\n" % len(body) if chunked else head


def _write(request: web.BaseRequest, data: bytes) -> None:
    if request.transport is not None:
        request.transport.write(data)


def _reset(request: web.BaseRequest) -> None:
    """End the connection with RST: a close with the linger time set to zero throws away what is unsent."""
    if request.transport is not None:
        request.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        request.transport.abort()


async def _pause(seconds: float, stopping: asyncio.Event) -> None:
    """Wait, but not past the end of the emulator."""
    if seconds:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stopping.wait()
