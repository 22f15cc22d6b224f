"""The drive that held the provisioning media: an empty one tells the platform that the disc was used."""

from __future__ import annotations

from functools import partial

from minprov.actions import EjectMedia
from minprov.discs.drive import eject, holds_disc
from minprov.machine.child_process import in_child_process
from minprov.machine.system import System
from minprov.properties.inspection import Inspection


async def inspect(system: System, action: EjectMedia) -> Inspection:
    """Ask the drive whether it holds a disc."""
    del system
    loaded = await in_child_process(partial(holds_disc, action.device))
    return Inspection(not loaded, "a disc" if loaded else "no disc")


async def converge(system: System, action: EjectMedia) -> None:
    """Open the tray."""
    del system
    await in_child_process(partial(eject, action.device))
