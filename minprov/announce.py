"""Tell of the outcome on this side of the wire: a file, the serial console, the host's KVP pool."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress

from minprov.config import Options
from minprov.errors import ProvisioningError
from minprov.result import Result, to_document
from minprov.state import REPORT
from minprov.system import System

logger = logging.getLogger(__name__)


async def store_report(system: System, options: Options, result: Result) -> None:
    """Keep the report in the state directory; that it cannot be written is logged and no more."""
    contents = json.dumps(to_document(result), indent=2).encode() + b"\n"
    try:
        await system.replace(f"{options.state_dir}/{REPORT}", contents, mode=0o600)
    except ProvisioningError as error:
        logger.warning("report not stored: %s", error)


def write_console(system: System, options: Options, line: str) -> None:
    """Write one line to the serial console of the running system, where there is one."""
    if not system.live or not options.console:
        return
    with suppress(OSError):
        # Without a reader a console may block for ever: what it does not take at once is not worth waiting for.
        descriptor = os.open(options.console, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"minprov: {line}\r\n".encode(errors="replace"))
        finally:
            os.close(descriptor)
