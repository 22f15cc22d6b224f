"""One case by hand: print what it expects, run it, enter its machine, keep what it changed. See docs/debugging.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from .by_itself import in_machine
from .case import Case, load_case
from .client import REPOSITORY
from .driver import PATH, run_case
from .golden import read_expected, shown
from .machine import Machine

CASES = REPOSITORY / "tests/cases"


def main() -> int:
    """Return 0 if the case could be run, whatever came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness", description=__doc__)
    parser.add_argument("what", choices=["expect", "run", "enter"], help="print what is expected; run; run and enter")
    parser.add_argument("case", help="the name of a folder in tests/cases, or a path of one")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="copy there what was changed (default: do not)")
    arguments = parser.parse_args()
    directory = Path(arguments.case) if "/" in arguments.case else CASES / arguments.case
    case = load_case(directory)
    if arguments.what == "expect":
        print(shown(read_expected(directory, case.like)))
        return os.EX_OK
    if os.geteuid() != 0:
        parser.error(f"{arguments.what} needs root")
    work = partial(_run, case, enter=arguments.what == "enter", keep=arguments.keep)
    return in_machine([sys.executable, "-m", "minprov"], work, tree=case.tree)


def _run(case: Case, machine: Machine, *, enter: bool, keep: Path | None) -> int:
    came_to = asyncio.run(run_case(case, machine))
    print("\n".join(came_to["log"]), file=sys.stderr)
    print(shown(came_to["observed"]))
    for fault in came_to["faults"]:
        print(f"fault: {fault}", file=sys.stderr)
    if keep:
        # With overlayfs' own marks: what was removed is a character device 0:0.
        for layer in machine.layers:
            os.makedirs(f"{keep}{layer.place}", exist_ok=True)
            subprocess.run(["cp", "--archive", f"{layer.upper}/.", f"{keep}{layer.place}"], check=True)
    if enter:
        print(f"This is the machine as {json.dumps(case.rule)} left it; exit ends it.", file=sys.stderr, flush=True)
        subprocess.run(
            ["chroot", machine.root, "/bin/bash", "-i"],
            check=False,
            env={"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root", "TERM": os.environ.get("TERM", "dumb")},
        )
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
