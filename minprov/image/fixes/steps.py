"""What a fix does to a system, step by step: a file is written or moved aside, or a tool of the system is run."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from minprov.definitions import Enum, NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.limits import BUILD_LIMIT
from minprov.machine.files import file_error, sync
from minprov.machine.tools import run_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from minprov.image.subject import Subject
    from minprov.machine.system import System

BACKUP = ".before-fix"
"""At the end of a name it makes udev, sudo, dracut, GRUB and boot loaders pass a file over."""
NEW_FILE_MODE = 0o644


class Act(Enum):
    """What a step does."""

    WRITE = "write"
    """What is there before is kept beside it; a backup that is there already stays as it is."""
    MOVE_ASIDE = "move aside"
    RUN = "run"


class Step(NamedTuple):
    """One step: of a file its path is the target, of a tool its command line."""

    act: Act
    target: str
    why: str
    contents: bytes = b""
    argv: tuple[str, ...] = ()


class Fix(NamedTuple):
    """A check that can be fixed, and how: without steps it cannot on this system."""

    id: str
    plan: Callable[[Subject, System], Iterable[Step]]


def run_step(system: System, why: str, *tools: tuple[str, ...]) -> list[Step]:
    """Return the step that runs the first tool that a system has; of a tree, which need not be this machine's, none."""
    if not system.live:
        return []
    for name, *arguments in tools:
        if found := system.own_tool(name):
            argv = (*found, *arguments)
            return [Step(Act.RUN, " ".join(argv), why, argv=argv)]
    return []


async def carry_out(system: System, steps: Sequence[Step]) -> None:
    """Do the steps in order and read back what was written.

    Raises:
        ProvisioningError: WRITE_FAILED, READ_BACK, TOOL_FAILED; steps before stay done.

    """
    for step in steps:
        try:
            if step.act is Act.RUN:
                await run_tool(list(step.argv), limit=BUILD_LIMIT)
            elif step.act is Act.MOVE_ASIDE:
                _move_aside(system, step.target)
            else:
                await _write(system, step)
        except OSError as error:
            raise file_error(error, step.target) from error


async def _write(system: System, step: Step) -> None:
    before, mode = system.read(step.target), NEW_FILE_MODE
    if before is not None:
        mode = stat.S_IMODE(os.stat(system.path(step.target)).st_mode)
        if not system.exists(step.target + BACKUP):
            await system.replace_own(step.target + BACKUP, before, mode=mode)
    await system.replace_own(step.target, step.contents, mode=mode)
    if system.read(step.target) != step.contents:
        raise ProvisioningError(Reason.READ_BACK, detail=f"{step.target} has other contents")


def _move_aside(system: System, path: str) -> None:
    parent, name = os.path.split(path)
    with system.directory(parent) as directory:
        os.rename(name, name + BACKUP, src_dir_fd=directory, dst_dir_fd=directory)
        sync(".", directory)
