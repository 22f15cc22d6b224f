"""Measure what the last resort costs a first boot, in instructions: ``python -m bench.last_resort``.

Its share is too small for a clock. callgrind counts every instruction, and a second run of the same program counts the
same. What is counted for the last resort is its import, all that a run does with it, and the process that waits. That
one begins with the count of its parent, of which the import is taken off again, and not what else came before the
fork: so the sum is a little more than what it costs. Needs root, valgrind, and time(1).
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.startup import provision
from minprov.emulator.platform import Emulator
from minprov.emulator.sample import sample_media

LIMIT = 0.01
TIMEOUT = 600.0  # callgrind takes fifty times as long
# A first boot imports these in any case: asyncio needs them.
BEFORE = "import marshal, os, select, signal, time, contextlib, minprov\n"
IMPORTED = "from minprov.last_resort import LastResort\n"
USED = """
last_resort = LastResort()
last_resort.know(timeout=600.0, wireserver_url="http://168.63.129.16", console="/dev/console", kvp_pool="", vm_id="")
last_resort.know(state_dir="/var/lib/minprov")
last_resort.claim()
last_resort.end()
time.sleep(1)  # until the process that waits has ended, too
"""
END = "os._exit(0)\n"


def counted(directory: str) -> list[str]:
    """Return the beginning of a command line whose processes are counted in files of a directory."""
    return ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={directory}/%p"]


def counts(directory: str) -> list[int]:
    """Return how many instructions each process took, the most first."""
    files = Path(directory).iterdir()
    found = (re.search(r"^totals: (\d+)", file.read_text(encoding="utf-8"), re.MULTILINE) for file in files)
    return sorted((int(match[1]) for match in found if match), reverse=True)


def count(code: str) -> list[int]:
    """Run a piece of Python and return the counts of its processes."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONPATH": os.getcwd()}
        command = [*counted(directory), sys.executable, "-S", "-P", "-c", code]
        subprocess.run(command, env=environment, check=True)
        return counts(directory)


def count_first_boot() -> int:
    """Provision a tree and return how many instructions the process of the run took."""

    async def main() -> int:
        async with Emulator() as platform:
            with sample_media() as media, tempfile.TemporaryDirectory() as directory:
                command = [*counted(directory), sys.executable, "-m", "minprov"]
                await asyncio.to_thread(provision, platform, media, command, timeout=TIMEOUT)
                return counts(directory)[0]

    return asyncio.run(main())


def main() -> None:
    """Print the figures; exit with 1 if the share is above what it may be."""
    (without,) = count(BEFORE + END)
    (at_fork,) = count(BEFORE + IMPORTED + END)
    run, waiting = count(BEFORE + IMPORTED + USED + END)
    own = run - without + waiting - at_fork
    whole = count_first_boot()
    share = own / whole
    print(f"first boot {whole / 1e6:.0f} million instructions, last resort at most {own / 1e6:.1f}: {share:.2%}")
    sys.exit(share > LIMIT)


if __name__ == "__main__":
    main()
