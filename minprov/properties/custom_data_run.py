"""customData that is a program, run once.

Opt-in, because it lets whoever may create a VM from the image run code in it as root.
"""

from __future__ import annotations

import hashlib

import aiofiles

from minprov.actions import ExecuteCustomData
from minprov.machine.files import file_error
from minprov.machine.system import System
from minprov.machine.tools import run_tool
from minprov.properties.inspection import Inspection

LIMIT = 3600.0  # seconds; the run's own deadline ends it sooner


async def inspect(system: System, action: ExecuteCustomData) -> Inspection:
    """Compare the program with the one that last ran to its end."""
    if not system.live:
        return Inspection(True, "left to the running system")
    done = system.read_text(_record(action))
    return Inspection(done == _digest(system, action), "has run" if done else "has not run")


async def converge(system: System, action: ExecuteCustomData) -> None:
    """Run it, keep what it printed, and note that it ran: a killed run starts it again."""
    await system.replace(action.path, system.read(action.path) or b"", mode=0o700)
    log = f"{action.path}.log"
    await system.replace(log, b"", mode=0o600)
    try:
        # What the program leaves running may print for as long as it likes, so not into memory.
        async with aiofiles.open(system.path(log), "r+b") as output:
            await run_tool([action.path], limit=LIMIT, output=output.fileno())
    except OSError as error:
        raise file_error(error, log) from error
    await system.replace(_record(action), _digest(system, action).encode(), mode=0o600)


def _record(action: ExecuteCustomData) -> str:
    return f"{action.path}.executed"


def _digest(system: System, action: ExecuteCustomData) -> str:
    return hashlib.sha256(system.read(action.path) or b"").hexdigest()
