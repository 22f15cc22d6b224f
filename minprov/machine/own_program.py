"""This program itself, run anew: as a child, or in the place of this process."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def own_argv(*arguments: str) -> list[str]:
    """Return a command line of this program as it was started; it goes with `own_environment`.

    That was by a Python with a script or with -m, or, in the static form, as a Python itself.
    """
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])], *arguments]


def own_environment() -> dict[str, str]:
    """Return what has the program find its modules where it does now."""
    return {"PYTHONPATH": os.pathsep.join(sys.path)}


def become(*arguments: str) -> NoReturn:
    """Run this program in the place of this process: what is not inheritable, and all memory, is gone.

    Raises: OSError.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, own_argv(*arguments), os.environ | own_environment())  # noqa: S606  # ourselves
