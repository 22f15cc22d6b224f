"""Tell of the outcome on this side of the wire: a file, the serial console, the host's KVP pool.

Any of these may be missing, full, locked or stuck, most of all when a run fails. So each is given a moment, and what
goes wrong with it is logged and no more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import suppress
from functools import partial

from minprov.config import Options
from minprov.limits import CHANNEL_LIMIT
from minprov.machine.blocking import in_thread
from minprov.machine.child_process import in_child_process
from minprov.machine.markers import REPORT
from minprov.machine.system import System
from minprov.outcome import kvp
from minprov.outcome.result import Result, shorten, to_document

logger = logging.getLogger(__name__)

KVP_KEY = "PROVISIONING_REPORT"
MAX_REPORT = 64 << 10
SHORTER = ((300, 50), (100, 25), (50, 15), (25, 10))
"""Characters of a text and items of a list in a report that is longer with more of them; the last ones always fit."""


async def store_report(system: System, options: Options, result: Result) -> None:
    """Keep the report in the state directory."""
    contents = encode_report(result)
    try:
        async with asyncio.timeout(CHANNEL_LIMIT):
            await system.replace_own(f"{options.state_dir}/{REPORT}", contents, mode=0o600)
    except Exception as error:  # whatever it is, such as a thread that cannot be had: the others are yet to be told
        logger.warning("report not stored: %s", str(error) or f"no answer in {CHANNEL_LIMIT:g} s")


def encode_report(result: Result) -> bytes:
    """Return the result's document in at most `MAX_REPORT` bytes: what does not fit is cut from texts and lists."""
    document = to_document(result)
    contents = _encode(document)
    for longest, most in SHORTER:
        if len(contents) <= MAX_REPORT:
            break
        contents = _encode(shorten(document, longest, most))
    return contents


async def write_console(options: Options, line: str) -> None:
    """Write one line to the serial console, where there is one."""
    if options.console:
        with suppress(OSError, MemoryError):
            async with asyncio.timeout(CHANNEL_LIMIT):
                await in_child_process(
                    partial(_write_line, options.console, f"minprov: {line}\r\n".encode(errors="replace"))
                )


async def tell_host(options: Options, report: str, result: Result) -> None:
    """Put the report in the host's pool, where there is one; the result says so if that was not possible."""
    if options.kvp_pool:
        try:
            async with asyncio.timeout(CHANNEL_LIMIT):
                await in_thread(kvp.put, options.kvp_pool, KVP_KEY, report)
        except FileNotFoundError:
            logger.debug("no KVP pool")
        except Exception as error:
            detail = getattr(error, "strerror", None) or str(error) or f"no answer in {CHANNEL_LIMIT:g} s"
            result.note(f"no report in the KVP pool: {detail}")


def _encode(document: object) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"


def _write_line(console: str, line: bytes) -> None:
    # What a console does not take at once is not worth waiting for: nobody may be reading. To close it may still take
    # half a minute, when the other end of a serial line holds it up.
    descriptor = os.open(console, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
