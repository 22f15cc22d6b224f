"""One case by hand: print what it expects, run it, enter its machine, keep what it changed. See docs/debugging.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from .case import Case, load_case
from .client import REPOSITORY
from .driver import PATH, run_case
from .golden import read_expected, shown
from .linux import CLONE_NEWNS, die_with_parent, unshare
from .machine import Image, Machine, Unavailable, leave_this_machine

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
    with tempfile.TemporaryDirectory(prefix="minprov-machine-") as place:
        return _in_namespaces(case, place, enter=arguments.what == "enter", keep=arguments.keep)


def _in_namespaces(case: Case, place: str, *, enter: bool, keep: Path | None) -> int:
    """Make the image and, in a process that is process 1 of it, the machine; wait for its end."""
    # A handler, so that an interrupt ends what runs in the machine, which has its own, and not these.
    signal.signal(signal.SIGINT, lambda *_: None)
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = os.EX_SOFTWARE
    try:
        os.umask(0o022)
        unshare(CLONE_NEWNS)
        image = Image(place, [sys.executable, "-m", "minprov"], privileged=True)
        leave_this_machine()
        if child := os.fork():
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        else:
            die_with_parent()
            _run(case, Machine(image, tree=case.tree), enter=enter, keep=keep)
            status = os.EX_OK
    except Unavailable as reason:
        print(f"cannot be run here: {reason}", file=sys.stderr)
        status = os.EX_UNAVAILABLE
    except BaseException:  # this process has to end here, whatever it was
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _run(case: Case, machine: Machine, *, enter: bool, keep: Path | None) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
