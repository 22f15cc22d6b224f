"""A machine made for one call, and gone when the call has returned."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

from .linux import CLONE_NEWNS, die_with_parent, unshare
from .machine import Image, Machine, Unavailable, leave_this_machine


def in_machine(program: list[str], work: Callable[[Machine], int], *, tree: bool = False) -> int:
    """Return what the call returns, which is given the machine in a process that is process 1 of it; needs root."""
    # A handler, so that an interrupt ends what runs in the machine, which has its own, and not these.
    signal.signal(signal.SIGINT, lambda *_: None)
    with tempfile.TemporaryDirectory(prefix="minprov-machine-") as place:
        if child := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        status = os.EX_SOFTWARE
        try:
            os.umask(0o022)
            unshare(CLONE_NEWNS)
            image = Image(place, program, privileged=True)
            leave_this_machine()
            if child := os.fork():
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            else:
                die_with_parent()
                status = work(Machine(image, tree=tree))
        except Unavailable as reason:
            print(f"cannot be run here: {reason}", file=sys.stderr)
            status = os.EX_UNAVAILABLE
        except BaseException:  # this process has to end here, whatever it was
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
