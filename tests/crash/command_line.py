"""What the campaigns have in common on their command lines."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from .effects import SUPPORTED


def read_command_line(program: str, kinds: Sequence[str]) -> tuple[int | None, list[str]]:
    """Return how many points of each kind are to be tried, None for all, and of which kinds; end where none can be."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument(
        "--points", type=int, metavar="N", help="try so many of each kind, evenly spread (default: all)"
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="try these only: " + ", ".join(kinds))
    options = parser.parse_args()
    if os.geteuid() != 0 or not SUPPORTED:
        parser.error("needs root, and x86-64, whose system calls it knows")
    if unknown := set(options.kinds) - set(kinds):
        parser.error(f"no such kind: {', '.join(unknown)}")
    return options.points, [kind for kind in kinds if kind in (options.kinds or kinds)]
