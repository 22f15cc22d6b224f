"""Documents kept in the state directory: customData, userData and the redacted ovf-env, byte for byte."""

from __future__ import annotations

import os
import stat

from minprov.actions import StoreFile
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System
from minprov.properties.inspection import Inspection

MODE = 0o600


async def inspect(system: System, action: StoreFile) -> Inspection:
    """Compare the bytes and the mode."""
    try:
        contents = system.read(action.path)
    except ProvisioningError as error:
        if error.reason is not Reason.NOT_PERMITTED:
            raise
        return Inspection(None, "cannot be seen without privileges")
    present = "none" if contents is None else f"{len(contents)} bytes"
    holds = contents == action.contents
    if holds and contents is not None:
        holds = stat.S_IMODE(os.stat(system.path(action.path)).st_mode) == MODE
    return Inspection(holds, present)


async def converge(system: System, action: StoreFile) -> None:
    """Put the document in place, or take away one that is not this VM's."""
    if action.contents is None:
        await system.remove(action.path)
    else:
        await system.replace(action.path, action.contents, mode=MODE)
