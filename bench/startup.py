"""Measure start-up: process start to Ready posted, against the import of the HTTP client alone, in one run.

The platform is emulated on loopback, the media is the sample image in a file, and the account is made by the machine's
own tools in a fresh tree for every run; Ready is when the platform has its report. Runs alternate with the yardstick,
since a shared machine's speed drifts: the figures to trust are the ratios. Needs root, for the tools' chroot(2), and
time(1).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from minprov.emulator.platform import Emulator
from minprov.emulator.sample import sample_media

RUNS = 40
COPIED = ("passwd", "shadow", "group", "gshadow", "login.defs", "subuid", "subgid")
# As in the unit: without it, building TLS contexts is a third of the import. A clean environment, as a boot has.
ENVIRONMENT = {"PATH": os.environ["PATH"], "SSL_CERT_FILE": "/dev/null"}
IMPORT_CLIENT = [sys.executable, "-I", "-c", "import aiohttp"]
BARE_PYTHON = [sys.executable, "-I", "-c", "pass"]

Measured = dict[str, float]


def make_tree(directory: str) -> None:
    """Make the smallest system that account tools work on."""
    etc = Path(directory, "etc")
    etc.mkdir(parents=True)
    for name in COPIED:
        if Path("/etc", name).exists():
            shutil.copy2(f"/etc/{name}", etc / name)
    shutil.copytree("/etc/skel", etc / "skel")
    (etc / "sudoers").write_text("@includedir /etc/sudoers.d\n")


def run(argv: Sequence[str]) -> Measured:
    """Run a command to its end: time in ms, peak resident memory in MiB."""
    start = time.monotonic()
    # time(1) is between, because a child's peak memory counts from before it executes: as a copy of this process.
    timed = ["/usr/bin/time", "--format=%M", *argv]
    done = subprocess.run(timed, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    elapsed = time.monotonic() - start
    if done.returncode:
        raise SystemExit(f"{argv} failed: {done.stderr}")
    return {"ms": elapsed * 1000, "memory": int(done.stderr.splitlines()[-1]) / 1024}


def provision(platform: Emulator, media: Path, command: Sequence[str], *, timeout: float = 60.0) -> Measured:
    """Provision a fresh tree once: time in ms until the platform has accepted Ready, peak resident memory in MiB."""
    with tempfile.TemporaryDirectory() as tree:
        make_tree(tree)
        urls = ["--imds-url", platform.imds_url, "--wireserver-url", platform.wireserver_url]
        asked, start = len(platform.requests), time.monotonic()
        measured = run([*command, "--root", tree, "--media", str(media), "--timeout", str(timeout), *urls])
    # IMDS may be asked a moment before, and heard a moment later.
    report = next((request for request in platform.requests[asked:] if request.endpoint == "health"), None)
    if report is None or report.verdict != "accepted":
        raise SystemExit("Ready was not reported")
    return measured | {"ms": report.at_ms - start * 1000}


def compare(name: str, first: Callable[[], Measured], second: Callable[[], Measured], limit: str) -> None:
    """Run two commands in turn and print the ratio of their times, pair by pair."""
    first(), second()
    pairs = [(first(), second()) for _ in range(RUNS)]
    ratios = sorted(mine["ms"] / yardstick["ms"] for mine, yardstick in pairs)
    mine_ms, yardstick_ms = (statistics.median(pair[index]["ms"] for pair in pairs) for index in (0, 1))
    memory = max(mine["memory"] for mine, _ in pairs)
    print(
        f"{name:<34} {mine_ms:6.0f} ms : {yardstick_ms:4.0f} ms   ratio {statistics.median(ratios):4.2f}"
        f" ({ratios[0]:.2f} to {ratios[-1]:.2f}, budget {limit})   peak {memory:4.1f} MiB"
    )


def measure_later_boots(command: Sequence[str]) -> None:
    """Compare with bare Python where nothing is to do: a mount namespace has firmware and marker."""
    if "--inside" not in sys.argv:
        prepare = (
            "mount -t tmpfs none /sys/class && mount -t tmpfs none /var/lib && "
            "mkdir -p /sys/class/dmi/id /var/lib/minprov/ready && "
            'echo {0} >/sys/class/dmi/id/product_uuid && touch /var/lib/minprov/ready/{0} && exec "$@"'
        ).format("7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14")
        inside = [sys.executable, "-m", "bench.startup", "--inside"]
        subprocess.run(["unshare", "--mount", "sh", "-c", prepare, "sh", *inside], check=True)
        return
    compare("later boot : bare Python", lambda: run(command), lambda: run(BARE_PYTHON), "2.00")


async def measure_first_boot(command: Sequence[str]) -> None:
    """Compare with the import of the HTTP client where everything is still to do."""
    with sample_media() as media:
        async with Emulator() as platform:
            ready, client = (lambda: provision(platform, media, command)), (lambda: run(IMPORT_CLIENT))
            await asyncio.to_thread(compare, "start to Ready : import aiohttp", ready, client, "1.00")


if __name__ == "__main__":
    minprov = [sys.executable, "-m", "minprov"]
    if "--inside" not in sys.argv:
        asyncio.run(measure_first_boot(minprov))
    measure_later_boots(minprov)
