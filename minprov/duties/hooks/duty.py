"""Run the image's own programs for a moment of a run: just before Ready, after it, or when the run has failed.

One after another, in order of names. Which of them have ended is on record after each, by the VM's id: a run that was
killed has the next one go on behind the last, and a captured disk has them run for its new VM. Those for a failure run
after each run that fails.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from minprov import __version__
from minprov.config import BEFORE_READY, FAILED, OnFailure
from minprov.duties.hooks.output import kept_output, write
from minprov.duties.hooks.programs import Program, find_programs
from minprov.errors import ProvisioningError, Reason
from minprov.limits import HOOKS_POLL
from minprov.machine.duty_record import path_of, read_record, shown_error, write_record
from minprov.machine.files import file_error
from minprov.machine.system import System
from minprov.machine.tools import run_tool
from minprov.properties.hooks import PROGRAM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from minprov.duties.hooks.settings import Options

SCHEMA = "minprov/hooks/1"
ENVIRONMENT = {"HOME": "/root", "LANG": "C.UTF-8"}
UMASK = 0o022
SUCCESS = "exit status 0"


def preview(options: Options, stage: str, state_dir: str, vm_id: str | None) -> dict[str, Any]:
    """Tell what `run` would do, as a document; changes nothing."""
    error, hooks = None, {}
    try:
        record = read_record(System(look_only=True), path_of(state_dir, PROGRAM))
        ended = record.get("finished", {}) if record.get("vm_id") == vm_id and stage != FAILED else {}
    except ProvisioningError:  # who is not root sees nothing of it
        ended = {}
    try:
        for program in find_programs(options.directory, stage):
            name = f"{stage}/{program.name}"
            not_run = program.passed_over and f"is passed over: {program.passed_over}"
            not_run = not_run or (program.fault and f"is refused: {program.fault}")
            hooks[name] = not_run or (f"has run: {ended[name]}" if name in ended else "would run")
            if program.fault and options.failure is OnFailure.FAIL:
                error = error or _refusal(stage, program)
    except ProvisioningError as refusal:
        error = refusal
    return _document(stage, hooks) | {"error": shown_error(error)}


async def run(options: Options, stage: str, state_dir: str, vm_id: str | None, report: bytes) -> dict[str, Any]:
    """Run those of a stage that have not run for this VM; return how they ended, with a note of each failure.

    Raises:
        ProvisioningError: before Ready HOOK_FAILED and HOOK_REFUSED, if that is to fail the run; WRITE_FAILED.

    """
    must_hold = stage == BEFORE_READY and options.failure is OnFailure.FAIL
    system, path, notes = System(), path_of(state_dir, PROGRAM), list[str]()
    with _open_log(f"{state_dir}/{PROGRAM}-{stage}.log") as log:
        record = read_record(system, path)
        if record.get("vm_id") != vm_id or record.get("schema") != SCHEMA or stage == FAILED:
            os.ftruncate(log, 0)  # it has what those printed that have ended on this VM
            record = {"schema": SCHEMA, "vm_id": vm_id, "finished": {}, "done": False}

        async def keep(**changes: object) -> None:
            if stage != FAILED:  # those of a failure have none: they run after each
                await write_record(system, path, record | {"version": __version__, "notes": notes} | changes)

        try:
            async for error in _run_programs(options, stage, report, record["finished"], log):
                await keep(error=None)
                if error and must_hold:
                    raise error
                if error:
                    notes.append(str(error))
        except ProvisioningError as error:
            await keep(error=shown_error(error))
            raise
        await keep(error=None, done=True)
    hooks = {name: status for name, status in record["finished"].items() if name.startswith(f"{stage}/")}
    return _document(stage, hooks) | {"notes": notes, "error": None}


def _document(stage: str, hooks: dict[str, str]) -> dict[str, Any]:
    return {"schema": SCHEMA, "version": __version__, "stage": stage, "hooks": hooks}


async def _run_programs(
    options: Options, stage: str, report: bytes, ended: dict[str, str], log: int
) -> AsyncIterator[ProvisioningError | None]:
    """Run each that has not ended yet, enter how it has, and yield what is wrong with it; refusals come first."""
    try:
        programs = [program for program in find_programs(options.directory, stage) if not program.passed_over]
    except ProvisioningError as error:
        yield error
        return
    for program in programs:
        if program.fault:
            yield _refusal(stage, program)
    for program in programs:
        name = f"{stage}/{program.name}"
        if not program.fault and name not in ended:
            write(log, f"== {name}\n".encode())
            ended[name] = await _execute(program.path, stage, options.time_limit, report, log)
        status = ended.get(name, SUCCESS)
        failed = ProvisioningError(Reason.HOOK_FAILED, stage=stage, name=program.name, status=status)
        yield None if status == SUCCESS else failed


async def _execute(path: str, stage: str, limit: float, report: bytes, log: int) -> str:
    """Run a program to its end, or to that of its time, and return how it ended."""
    environment = ENVIRONMENT | {"MINPROV_STAGE": stage}
    try:
        with kept_output(log) as output:
            await run_tool([path], stdin=report, limit=limit, output=output, environment=environment, umask=UMASK)
    except ProvisioningError as error:
        data = error.data
        kind = next((key for key in ("exit_status", "signal") if key in data), None)
        return f"{kind.replace('_', ' ')} {data[kind]}" if kind else data["detail"]
    return SUCCESS


def _refusal(stage: str, program: Program) -> ProvisioningError:
    return ProvisioningError(Reason.HOOK_REFUSED, stage=stage, name=program.name, detail=program.fault)


@contextmanager
def _open_log(path: str) -> Iterator[int]:
    """Open the stage's log, once no other program is at that stage: what a killed run has left ends in a moment."""
    try:
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(log, fcntl.LOCK_EX)
    except OSError as error:
        raise file_error(error, path) from error
    try:
        yield log
    finally:
        os.close(log)


async def end_with_parent(task: asyncio.Task[Any]) -> None:
    """Cancel the task when the run is gone that waits for it: the next run goes on."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  # of another process
        await asyncio.sleep(HOOKS_POLL)
    task.cancel()
