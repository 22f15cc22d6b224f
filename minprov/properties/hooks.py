"""The image's own programs that run just before Ready, by `minprov hooks`: its record says what came of them."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

from minprov.config import BEFORE_READY, STAGES
from minprov.errors import ProvisioningError, Reason
from minprov.limits import MAX_SECONDS
from minprov.machine.duty_record import error_in, path_of, read_record
from minprov.machine.own_program import own_argv, own_environment
from minprov.machine.tools import ENVIRONMENT, run_tool
from minprov.properties.inspection import Inspection

if TYPE_CHECKING:
    from minprov.actions import RunHooks
    from minprov.machine.system import System

PROGRAM = "hooks"
FILES = (f"{PROGRAM}.json", *(f"{PROGRAM}-{stage}.log" for stage in STAGES))
"""What is kept in the state directory."""
SYSTEMD = "/run/systemd/system"  # sd_booted(3)


def refuse_beside_systemd() -> None:
    """Raise CONFIG_INVALID where systemd runs: it has its own way to say what comes after a run."""
    if os.path.isdir(SYSTEMD):
        detail = (
            "systemd runs here: order a unit after minprov-ready.target, or before minprov.service, in place of a hook"
        )
        hint = "for a run that failed, OnFailure= of minprov.service"
        raise ProvisioningError(Reason.CONFIG_INVALID, key="hooks.directory", detail=detail, hint=hint)


async def inspect(system: System, action: RunHooks) -> Inspection:
    """Look into the record whether all have run for this VM; in a dry run, have their program say which would run."""
    if not system.live:
        return Inspection(True, "left to the running system", verified=False)
    if system.look_only:
        return await _preview(action)
    record = read_record(system, path_of(action.state_dir, PROGRAM))
    if record.get("vm_id") != action.vm_id or not record.get("done"):
        return Inspection(False, "have not all run")
    return Inspection(True, f"have run: {len(record['finished'])}", notes=tuple(record["notes"]))


async def converge(system: System, action: RunHooks) -> None:
    """Have those run that have not; the deadline of the run ends them.

    Raises:
        ProvisioningError: HOOK_FAILED, HOOK_REFUSED, or how their program ended.

    """
    argv, environment = own_argv(PROGRAM, BEFORE_READY, *action.flags), ENVIRONMENT | own_environment()
    try:
        # By SIGTERM, upon which it ends the one that runs: that is in a session of its own.
        await run_tool(argv, stdin=action.report, limit=MAX_SECONDS, environment=environment, stop=signal.SIGTERM)
    except ProvisioningError as error:
        raise error_in(read_record(system, path_of(action.state_dir, PROGRAM))) or error from None


async def _preview(action: RunHooks) -> Inspection:
    argv = own_argv(PROGRAM, BEFORE_READY, "--dry-run", "--json", *action.flags)
    document = json.loads(await run_tool(argv, environment=ENVIRONMENT | own_environment()))
    if error := error_in(document):
        if error.reason is Reason.NOT_PERMITTED:
            return Inspection(None, "cannot be seen without privileges")
        raise error
    would_run = "would run" in document["hooks"].values()
    lines = (f"hook {name}  {state}" for name, state in document["hooks"].items())
    return Inspection(not would_run, "would run" if would_run else "none would run", notes=tuple(lines))
