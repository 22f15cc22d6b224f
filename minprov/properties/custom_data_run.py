"""customData that is a program, run once for each VM, in a unit of its own.

Opt-in, because it lets whoever may create a VM from the image run code in it as root. A record says how far it is: due,
then started, then ended. What was started is never started again, also where nobody knows how it ended.

With systemd, the unit minprov-custom-data.service runs it by `minprov custom-data`, outside of minprov's own sandbox;
without, this process does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from contextlib import suppress
from typing import Any

import aiofiles

from minprov.actions import ExecuteCustomData
from minprov.errors import ProvisioningError, Reason
from minprov.formats.sha2 import sha256
from minprov.limits import CUSTOM_DATA_UNIT_LIMIT
from minprov.machine.files import file_error
from minprov.machine.identity import read_identity
from minprov.machine.system import System
from minprov.machine.tools import run_tool
from minprov.properties.inspection import Inspection

logger = logging.getLogger(__name__)

RECORD = "custom-data.json"
SCHEMA = "minprov/custom-data/1"
LOG = "custom-data.log"
UNIT = "minprov-custom-data.service"
SYSTEMD = "/run/systemd/system"  # sd_booted(3)
ENVIRONMENT = {"HOME": "/root", "LANG": "C.UTF-8"}
UMASK = 0o022


async def inspect(system: System, action: ExecuteCustomData) -> Inspection:
    """Look into the record: whether it ran for this VM, and how it ended."""
    if not system.live:
        return Inspection(True, "left to the running system", verified=False)
    record = _read_record(system, action.state_dir)
    if not record or not _is_of_this_vm(record, system, action):
        return Inspection(False, "has not run")
    if record["state"] == "due" and (action.wait or not await _is_queued(system)):
        return Inspection(False, "has not run")
    if not action.wait:
        shown = _shown_end(record) if record["state"] == "ended" else "runs in its unit"
        return Inspection(True, shown, verified=False)
    if record["state"] == "started":
        raise ProvisioningError(Reason.TOOL_FAILED, tool="customData", detail="interrupted; it is not started twice")
    if record["error"]:
        raise ProvisioningError(Reason[record["error"]["reason"]], **record["error"]["data"])
    return Inspection(True, _shown_end(record))


async def converge(system: System, action: ExecuteCustomData) -> None:
    """Make it due, and have it run; where the run does not wait, it is only started."""
    await make_due(system, action)
    if system.exists(SYSTEMD):
        await _start_unit(system, action)
        return
    path = f"{action.state_dir}/{LOG}"
    await system.replace_own(path, b"", mode=0o600)
    try:
        # What the program leaves running may print for as long as it likes, so not into memory.
        async with aiofiles.open(system.path(path), "r+b") as log:
            with suppress(ProvisioningError):  # the record has it
                await execute(system, action.state_dir, output=log.fileno())
    except OSError as error:
        raise file_error(error, path) from error


async def make_due(system: System, action: ExecuteCustomData) -> None:
    """Keep on record that the program is to run, unless it has been started for this VM.

    Raises:
        ProvisioningError: WRITE_FAILED, NOT_PERMITTED.

    """
    record = _read_record(system, action.state_dir)
    if not system.live or (record and record["state"] != "due" and _is_of_this_vm(record, system, action)):
        return
    program = system.read(action.path) or b""
    record = {
        "schema": SCHEMA,
        "vm_id": read_identity().vm_id,
        "sha256": sha256(program).hexdigest(),
        "state": "due",
        "path": action.path,
        "time_limit": action.time_limit,
        "environment": {
            "MINPROV_VM_ID": read_identity().vm_id or "",
            "MINPROV_HOSTNAME": action.hostname or "",
            "MINPROV_USERNAME": action.username or "",
            "MINPROV_STATE_DIR": action.state_dir,
        },
    }
    await _write_record(system, action.state_dir, record)


def find_due(system: System, state_dir: str) -> ExecuteCustomData | None:
    """Return what an earlier run of this VM has made due for after Ready, and may not have started."""
    record = _read_record(system, state_dir)
    if not record or record["state"] != "due":
        return None
    told = record["environment"]
    hostname, username = (told[name] or None for name in ("MINPROV_HOSTNAME", "MINPROV_USERNAME"))
    action = ExecuteCustomData(record["path"], state_dir, record["time_limit"], False, hostname, username)
    return action if _is_of_this_vm(record, system, action) else None


def find_end(system: System, state_dir: str, vm_id: str | None) -> str | None:
    """Return how the VM's program ended, if it has."""
    record = _read_record(system, state_dir)
    if not record or record["vm_id"] != vm_id or record["state"] != "ended":
        return None
    return _shown_end(record)


async def execute(system: System, state_dir: str, *, output: int) -> None:
    """Run the program that is due, its output into an open file, and note how it ended.

    Raises:
        ProvisioningError: TOOL_FAILED, TOOL_NOT_FOUND, WRITE_FAILED, NOT_PERMITTED.

    """
    record = _read_record(system, state_dir)
    if not record or record["state"] != "due":
        logger.warning("nothing is run: customData is %s", record["state"] if record else "not due")
        return
    program = system.read(record["path"]) or b""
    await _write_record(system, state_dir, record | {"state": "started"})
    began = time.monotonic()
    failure: ProvisioningError | None = None
    try:
        os.chmod(record["path"], 0o700)
        environment = ENVIRONMENT | record["environment"]
        await run_tool(
            [record["path"]], limit=record["time_limit"], output=output, environment=environment, umask=UMASK
        )
    except OSError as error:
        failure = file_error(error, record["path"])
    except ProvisioningError as error:
        data = error.data
        if program.partition(b"\n")[0].endswith(b"\r"):
            data = data | {"detail": "its first line ends in CR LF: the interpreter's name has a CR in it"}
        failure = ProvisioningError(error.reason, **data)
    ended: dict[str, Any] = {
        "state": "ended",
        "duration": round(time.monotonic() - began, 3),
        "error": failure and {"reason": failure.reason.name, "data": failure.data},
    }
    await _write_record(system, state_dir, record | ended)
    if failure:
        raise failure


async def _start_unit(system: System, action: ExecuteCustomData) -> None:
    if not action.wait:
        await run_tool(["systemctl", "start", "--no-block", UNIT])
        return
    try:
        await run_tool(["systemctl", "start", UNIT], limit=action.time_limit + CUSTOM_DATA_UNIT_LIMIT)
    except ProvisioningError:
        record = _read_record(system, action.state_dir)
        if record is None or record["state"] == "due":  # there is no such unit, or it could not be started
            raise
    except asyncio.CancelledError:
        # The deadline has come, or the run was told to stop.
        await run_tool(["systemctl", "stop", "--no-block", UNIT])
        raise


async def _is_queued(system: System) -> bool:
    """Tell whether systemd has started the unit, or is going to."""
    if not system.exists(SYSTEMD):
        return False
    shown = await run_tool(["systemctl", "show", "--property=Job", UNIT])
    return re.search(r"^Job=[1-9]", shown, re.MULTILINE) is not None


def _is_of_this_vm(record: dict[str, Any], system: System, action: ExecuteCustomData) -> bool:
    # Without firmware that tells the VM id there is IMDS', which may come after this.
    if vm_id := read_identity().vm_id:
        return bool(record["vm_id"] == vm_id)
    return bool(record["sha256"] == sha256(system.read(action.path) or b"").hexdigest())


def _shown_end(record: dict[str, Any]) -> str:
    if record["error"]:
        return f"failed after {record['duration']:.1f} s"
    return f"exit status 0 after {record['duration']:.1f} s"


def _read_record(system: System, state_dir: str) -> dict[str, Any] | None:
    """Return the record; one that cannot be read is none: whoever can damage it can run programs as root."""
    try:
        record = json.loads(system.read(f"{state_dir}/{RECORD}") or b"")
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else None


async def _write_record(system: System, state_dir: str, record: dict[str, Any]) -> None:
    await system.replace_own(f"{state_dir}/{RECORD}", json.dumps(record).encode() + b"\n", mode=0o600)
