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
        found = [(system.read(path), wanted) for path, wanted in _files(action)]
    except ProvisioningError as error:
        if error.reason is not Reason.NOT_PERMITTED:
            raise
        return Inspection(None, "cannot be seen without privileges")
    contents = found[0][0]
    present = "none" if contents is None else f"{len(contents)} bytes"
    holds = all(there == wanted for there, wanted in found)
    # Executed customData has its owner's other bits as well.
    if holds and contents is not None:
        holds = all(_is_private(system, path) for path, wanted in _files(action) if wanted is not None)
    return Inspection(holds, present)


async def converge(system: System, action: StoreFile) -> None:
    """Put the document in place, or take away one that is not this VM's."""
    for path, wanted in _files(action):
        if wanted is not None:
            await system.replace(path, wanted, mode=MODE)
        elif system.exists(path):
            await system.remove(path)


def _files(action: StoreFile) -> tuple[tuple[str, bytes | None], ...]:
    return (action.path, action.contents), (f"{action.path}.decoded", action.decoded)


def _is_private(system: System, path: str) -> bool:
    return not stat.S_IMODE(os.stat(system.path(path)).st_mode) & 0o077
