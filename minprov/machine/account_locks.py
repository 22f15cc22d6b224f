"""What account tools that were killed, or have failed, leave behind, and what is in the way of the next."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from minprov.machine.manifest import TOOLS, Effect
from minprov.machine.tools import run_tool

if TYPE_CHECKING:
    from minprov.machine.system import System

DIRECTORY = "/etc"
DATABASE = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")


def tools_effect(system: System) -> list[Effect]:
    """Return what the journal is to say before account tools are run, if it does not yet."""
    names = tuple(_seen(system.path(DIRECTORY)))
    said = system.journal.find(TOOLS, DIRECTORY)
    return [] if said and set(names) <= set(said.names) else [Effect(TOOLS, DIRECTORY, names=names)]


async def run_account_tool(system: System, argv: list[str], *effects: Effect, stdin: bytes = b"") -> None:
    """Run an account tool once the journal has its effects; one that fails or is stopped leaves nothing behind."""
    await system.note(*effects, *tools_effect(system))
    try:
        await run_tool(argv, stdin=stdin)
    except BaseException:
        clear_up_after_tools(system)
        raise


def what_tools_left(system: System) -> tuple[Effect, ...]:
    """Clear up after tools; where one that was killed takes its time to end, return what the next run needs for it."""
    said = system.journal.find(TOOLS, DIRECTORY)
    return () if said is None or clear_up_after_tools(system) else (said,)


def clear_up_after_tools(system: System) -> bool:
    """Remove the lock and temporary files of account tools, and return True; unless one is at work.

    They would be in the way of the next: shadow-utils respects a lock for as long as there is a process with the number
    in it, and after a power cut that may be any; busybox waits for its temporary file to go away, and then gives up.
    Whether a tool is at work is told by the locks that the kernel gives back: shadow-utils' on .pwd.lock, busybox's on
    the file itself. A lock is known by the number in it. A temporary file is one only if, by the journal, it was not
    there before a tool was run: /etc/passwd.20240131 may be somebody's copy.
    """
    with suppress(OSError), ExitStack() as stack:
        etc = system.path(DIRECTORY)
        for name in (".pwd.lock", *DATABASE):
            with suppress(FileNotFoundError):
                # A FIFO, opened so, has no writer to wait for.
                file = os.open(f"{etc}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                stack.callback(os.close, file)
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        effect = system.journal.find(TOOLS, DIRECTORY)
        new = set(_seen(etc)) - set(effect.names) if effect else set()
        for name in os.listdir(etc):
            path = f"{etc}/{name}"
            if _is_lock(path, name) or _identified(path, name) in new:
                os.unlink(path)
        return True
    return False


def _seen(etc: str) -> list[str]:
    """Return the names, with their inodes, of what may be a temporary file of a tool."""
    return [_identified(f"{etc}/{name}", name) for name in os.listdir(etc) if _may_be_temporary(f"{etc}/{name}", name)]


def _identified(path: str, name: str) -> str:
    try:
        return f"{name} {os.lstat(path).st_ino}"
    except OSError:
        return name


def _may_be_temporary(path: str, name: str) -> bool:
    """Tell whether it is named as shadow-utils' temporary file, by the process whose number it holds, or busybox's."""
    file, dot, ending = name.rpartition(".")
    if dot:
        return file in DATABASE and ending.isdecimal() and _contents(path) in (ending, "")  # not written yet
    return name.endswith("+") and name[:-1] in DATABASE


def _is_lock(path: str, name: str) -> bool:
    file, _, ending = name.rpartition(".")
    return file in DATABASE and ending == "lock" and (_contents(path) or "").isdecimal()


def _contents(path: str) -> str | None:
    """Return what a lock holds, which is the number of a process: commonio.c in shadow-utils."""
    with (
        suppress(OSError),
        open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file,
    ):
        held = file.read(32).rstrip(b"\0\n")
        return held.decode() if held.isdigit() or not held else None
    return None
