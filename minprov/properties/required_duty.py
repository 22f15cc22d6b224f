"""A duty that is required: its program is run, and Ready waits for what it comes to.

The core knows no duty but by its program's name. The program writes a record, and its error is the step's.
"""

from __future__ import annotations

from minprov.actions import RunDuty
from minprov.errors import ProvisioningError, Reason
from minprov.limits import DUTY_LIMIT
from minprov.machine.duty_record import error_in, is_of_this_boot, path_of, read_record
from minprov.machine.own_program import own_argv, own_environment
from minprov.machine.system import System
from minprov.machine.tools import ENVIRONMENT, run_tool
from minprov.properties.inspection import Inspection

SYSTEMD = "/run/systemd/system"  # sd_booted(3)


async def inspect(system: System, action: RunDuty) -> Inspection:
    """Look for the record of this boot; one that has an error is none: what failed is tried again."""
    if not system.live:
        return Inspection(True, "left to the running system", verified=False)
    try:
        record = read_record(system, path_of(action.state_dir, action.program))
    except ProvisioningError as error:
        if error.reason is not Reason.NOT_PERMITTED:
            raise
        return Inspection(None, "cannot be seen without privileges")
    if is_of_this_boot(system, record) and not record["error"]:
        return Inspection(True, "has run in this boot")
    return Inspection(False, "has not run in this boot")


async def converge(system: System, action: RunDuty) -> None:
    """Run the program to its end.

    Raises:
        ProvisioningError: what the program has in its record, or else how it ended.

    """
    try:
        await _run(system, action)
    except ProvisioningError as error:
        record = read_record(system, path_of(action.state_dir, action.program))
        raise (error_in(record) if is_of_this_boot(system, record) else None) or error from None


async def _run(system: System, action: RunDuty) -> None:
    if action.unit and system.exists(SYSTEMD):
        await run_tool(["systemctl", "start", action.unit], limit=DUTY_LIMIT)
        return
    await run_tool(own_argv(action.program), limit=DUTY_LIMIT, environment=ENVIRONMENT | own_environment())
