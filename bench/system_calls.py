"""Count the system calls of a first boot of a live machine: its own, and those of the programs that it starts.

The machine is a scenario's (`tests.harness`): this one's tree below an overlay, an image's accounts, a drive with the
sample VM's disc, and the platform at its real addresses. Unlike a first boot in a tree, which `bench.instructions`
counts, it asks the programs that decide who may log in. How often one thread waits for another is left out: that
depends on what else this machine does. Needs root and strace(1).
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from pathlib import Path

from bench.startup import ENVIRONMENT
from minprov.emulator.platform import Emulator
from minprov.emulator.sample import sample_media
from minprov.emulator.vm import SAMPLE_VM
from tests.harness.by_itself import in_machine
from tests.harness.driver import PATH
from tests.harness.machine import IMDS, WIRESERVER, Machine

BEFORE = 9015
"""What version 0.1.0 took, which asked sudo nothing and read few settings of sshd: Debian 12, Python 3.11.7."""
LIMIT = 1.02
TRACES = "/mnt/trace"
STRACE = (
    "strace",
    "--follow-forks",
    "--output-separately",
    "--quiet=all",
    "--signal=none",
    f"--output={TRACES}/process",
)
CALL = re.compile(r"^(\w+)\(", re.MULTILINE)
EXECUTED = re.compile(r'^execve\("[^"]*/([^"]*)".* = 0$', re.MULTILINE)


def prepare(machine: Machine) -> None:
    """Have a machine be an Azure VM at its first boot."""
    machine.show_firmware("gen2", SAMPLE_VM.vm_id)
    media = Path(f"{machine.root}/mnt/media")
    with sample_media() as image:
        media.write_bytes(image.read_bytes())
    machine.insert_disc(str(media))
    machine.raise_interface()
    Path(machine.root + TRACES).mkdir()


async def provision(machine: Machine) -> None:
    """Provision a machine below strace(1)."""
    async with Emulator(
        SAMPLE_VM, wireserver_address=(WIRESERVER, 80), imds_address=(IMDS, 80), host_plugin_address=None
    ):
        process = await asyncio.create_subprocess_exec(
            *("chroot", machine.root, *STRACE, *machine.program),
            env=ENVIRONMENT | {"PATH": PATH, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=asyncio.subprocess.DEVNULL,
        )
        if status := await process.wait():
            raise SystemExit(f"minprov failed: {status}")


def count(machine: Machine) -> Counter[str]:
    """Return how many system calls each program made, by its name."""
    calls: Counter[str] = Counter()
    for trace in Path(machine.root + TRACES).iterdir():
        # A process belongs to minprov until it executes a program.
        first, *others = EXECUTED.split(trace.read_text(encoding="utf-8", errors="replace"))
        for program, piece in (("minprov", first), *zip(others[::2], others[1::2], strict=True)):
            name = "minprov" if program == "python" else program
            calls[name] += sum(call != "futex" for call in CALL.findall(piece))
    return calls


def measure(machine: Machine) -> int:
    """Provision a machine, print what was counted, and return 0 if it is within the limit."""
    prepare(machine)
    asyncio.run(provision(machine))
    calls = count(machine)
    print(", ".join(f"{program} {number}" for program, number in calls.most_common()))
    ratio = calls.total() / BEFORE
    print(f"system calls {calls.total()}, of 0.1.0 {BEFORE}: ratio {ratio:.3f}, budget {LIMIT}")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(in_machine([sys.executable, "-I", "-m", "minprov"], measure))
