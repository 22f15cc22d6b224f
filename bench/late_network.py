"""Measure a network that comes late: how soon after there is a route Ready is posted, and what is done before that.

In a network namespace of its own the loopback is down, so there is no route to the emulated platform. It is brought up
when the program has nothing left to do but wait for it. Needs root.
"""

from __future__ import annotations

import asyncio
import fcntl
import glob
import json
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.startup import ENVIRONMENT, make_tree
from minprov.emulator.platform import Emulator
from minprov.emulator.sample import sample_media

RUNS = 10
ANY = ("0.0.0.0", 0)  # in a namespace of its own, where 127.0.0.1 is not there yet
SETTLED, WATCHED = 1.0, 1.0
"""Seconds until a run has nothing more to do without a network, once all is applied; then, in which it is watched."""
# Azure's firmware tells the VM's id; without it that is asked of IMDS.
FIRMWARE = """
mount -t tmpfs none /sys/class && mkdir -p /sys/class/dmi/id &&
echo 7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14 >/sys/class/dmi/id/product_uuid && exec "$@"
"""
APPLIED_LIMIT = 60.0
POLL = 0.05
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)


class Late(NamedTuple):
    """What a run did: how often it woke up while there was no route, and its requests; then how soon Ready came."""

    wake_ups: int
    requests: tuple[str, ...]
    ms: float


async def measure(command: list[str], *, silent_imds: bool) -> Late:
    """Provision a fresh tree once; the namespace's loopback has never been up. IMDS may take requests and be silent."""
    with tempfile.TemporaryDirectory() as tree, sample_media() as media, socket.create_server(ANY) as silent:
        make_tree(tree)
        async with Emulator(wireserver_address=ANY, imds_address=ANY) as platform:
            imds = f"http://127.0.0.1:{silent.getsockname()[1]}" if silent_imds else platform.imds_url
            urls = ["--imds-url", imds, "--wireserver-url", platform.wireserver_url]
            arguments = ["--root", tree, "--media", str(media), *(url.replace(ANY[0], "127.0.0.1") for url in urls)]
            process = await asyncio.create_subprocess_exec(*command, *arguments, env=ENVIRONMENT, stderr=-1, stdout=-3)
            try:
                await _wait_for_marker(f"{tree}/var/lib/minprov/applied")
                await asyncio.sleep(SETTLED)
                before = _switches(process.pid)
                await asyncio.sleep(WATCHED)
                wake_ups = _switches(process.pid) - before
                start = time.monotonic()
                _raise_loopback()
                _, messages = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
            ready = next((request for request in platform.requests if request.endpoint == "health"), None)
            if process.returncode or ready is None or ready.verdict != "accepted":
                raise SystemExit(f"Ready was not reported: {messages.decode()}")
            return Late(
                wake_ups, tuple(str(request.endpoint) for request in platform.requests), ready.at_ms - start * 1000
            )


async def _wait_for_marker(directory: str) -> None:
    async with asyncio.timeout(APPLIED_LIMIT):
        while not glob.glob(f"{directory}/*"):  # noqa: ASYNC110  # another process makes it
            await asyncio.sleep(POLL)


def _switches(pid: int) -> int:
    """Return how often a process has left the processor because it waited, all its threads together."""
    lines = [
        line
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches:")
    ]
    return sum(int(line.split()[1]) for line in lines)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0)), 16)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def measure_in_namespace(command: list[str], *, silent_imds: bool = False) -> Late:
    """Do that in a new network namespace: in one whose loopback has been up, routes stay when it is down."""
    inside = [sys.executable, "-m", "bench.late_network", "--silent-imds" if silent_imds else "--inside", *command]
    entered = ["unshare", "--net", "--mount", "sh", "-c", FIRMWARE, "sh", *inside]
    done = subprocess.run(entered, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE, text=True)
    wake_ups, requests, ms = json.loads(done.stdout)
    return Late(wake_ups, tuple(requests), ms)


def main() -> None:
    """Print one line, or inside a namespace what was measured."""
    if sys.argv[1:]:
        print(json.dumps(asyncio.run(measure(sys.argv[2:], silent_imds=sys.argv[1] == "--silent-imds"))))
        return
    runs = [measure_in_namespace([sys.executable, "-m", "minprov"]) for _ in range(RUNS)]
    times = sorted(run.ms for run in runs)
    print(
        f"{'a late route : Ready':<34} {statistics.median(times):6.0f} ms"
        f" ({times[0]:.0f} to {times[-1]:.0f}, budget 100)"
        f"   {max(len(run.requests) for run in runs)} requests"
        f"   {max(run.wake_ups for run in runs)} wake-ups while there is none"
    )


if __name__ == "__main__":
    main()
