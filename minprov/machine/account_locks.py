"""What account tools that were killed leave behind, and what is in the way of the next."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minprov.machine.system import System

DATABASE = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")


def clear_up_after_killed_tools(system: System) -> None:
    """Remove the lock and temporary files of account tools, unless one is at work.

    They would be in the way of the next: shadow-utils respects a lock for as long as there is a process with the number
    in it, and after a power cut that may be any; busybox waits for its temporary file to go away, and then gives up.
    Whether a tool is at work is told by the locks that the kernel gives back: shadow-utils' on .pwd.lock, busybox's on
    the file itself.
    """
    with suppress(OSError), ExitStack() as stack:
        etc = system.path("/etc")
        for name in (".pwd.lock", *DATABASE):
            with suppress(FileNotFoundError):
                # A FIFO, opened so, has no writer to wait for.
                file = os.open(f"{etc}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                stack.callback(os.close, file)
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        for name in os.listdir(etc):
            if _is_left_by_a_tool(name):
                os.unlink(f"{etc}/{name}")


def _is_left_by_a_tool(name: str) -> bool:
    """Tell whether it is shadow-utils' lock, its temporary file, named by its process, or busybox's."""
    file, dot, ending = name.rpartition(".")
    if dot:
        return file in DATABASE and (ending == "lock" or ending.isdecimal())
    return name.endswith("+") and name[:-1] in DATABASE
