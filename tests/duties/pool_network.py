"""A pooled VM's network in two namespaces: the platform in one, the machine in the other, a veth pair as its NIC.

Run as ``unshare --net python -m tests.duties.pool_network NAME DIRECTORY``; prints what the named story came to.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from minprov.config import Options
from minprov.duties.wait_in_pool import duty
from minprov.duties.wait_in_pool.links import LinkWatch, links_in_use
from minprov.machine import markers
from minprov.machine.identity import Identity
from minprov.machine.system import System
from minprov.ovf import parse_ovf_env

if TYPE_CHECKING:
    from collections.abc import Iterator

UUID = "7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14"
OWNER = """
[[reprovisiondata]]
[[reprovisiondata]]
change = { reprovisioned = true, hostname = "owned-01" }
"""
NO_ANSWER = """
[[health]]
drop = "stall"
heard = true
"""


def run(command: str) -> None:
    subprocess.run(command.split(), check=True)


@contextmanager
def platform(directory: Path, faults: str) -> Iterator[subprocess.Popen[str]]:
    """Start the emulated platform in a namespace of its own; the context ends with it."""
    (directory / "faults.toml").write_text(faults)
    emulator = [sys.executable, "-m", "minprov.emulator", "--real-addresses"]
    emulator += ["--faults", f"{directory}/faults.toml", "--log", f"{directory}/log"]
    addresses = "ip address add 168.63.129.16/32 dev lo && ip address add 169.254.169.254/32 dev lo"
    shell = ["unshare", "--net", "sh", "-c", f'ip link set lo up && {addresses} && exec "$0" "$@"']
    process = subprocess.Popen([*shell, *emulator], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert "listening" in process.stdout.readline()
        yield process
    finally:
        process.terminate()
        process.wait()


def plug_in(name: str, process: subprocess.Popen[str]) -> None:
    """Give the machine a NIC, and it an address, as a network manager does by and by."""
    run(f"ip link add {name} type veth peer name p-{name} netns {process.pid}")
    run(f"nsenter --target {process.pid} --net ip address add 10.0.0.1/24 dev p-{name}")
    run(f"nsenter --target {process.pid} --net ip link set p-{name} up")
    raise_link(name)


def raise_link(name: str) -> None:
    run(f"ip link set {name} up")
    run(f"ip address replace 10.0.0.4/24 dev {name}")
    run("ip route replace default via 10.0.0.1")


async def asked(directory: Path, endpoint: str, count: int) -> None:
    """Wait until an endpoint has been asked so often."""
    async with asyncio.timeout(60):
        while (directory / "log").read_text().count(f'"endpoint": "{endpoint}"') < count:  # noqa: ASYNC110  # a file
            await asyncio.sleep(0.02)


async def find_owner(directory: Path, name: str) -> None:
    """Have the owner come with a NIC that goes down and up, or with another one."""
    duty.POOL_POLL = 600.0  # type: ignore[attr-defined]  # what ends the pause is the network alone
    with platform(directory, OWNER) as process:
        plug_in("e0", process)
        waiting = asyncio.create_task(duty.fetch_ovf_env(Options()))
        await asked(directory, "reprovisiondata", 1)
        await asyncio.sleep(0.5)  # what comes of the NIC's first configuration is over
        if name == "other-nic":
            run("ip link delete e0")
            await asyncio.sleep(0.5)
            plug_in("e1", process)
        else:
            run("ip link set e0 down")
            await asyncio.sleep(0.5)
            raise_link("e0")
        document = await asyncio.wait_for(waiting, 60)
        print(parse_ovf_env(document).hostname)


async def report_once(directory: Path) -> None:
    """Take the NIC before the answer to the Ready report is there, and give another one."""
    options = Options(state_dir=str(directory / "state"), media=("/nonexistent",), console="", kvp_pool="")
    run(f"mkdir --mode=0700 {options.state_dir}")
    identity = Identity(chassis_asset_tag=None, dmi_uuid=UUID, vm_id=UUID)
    with platform(directory, NO_ANSWER) as process:
        plug_in("e0", process)
        entering = asyncio.create_task(duty.enter(options, System(), identity, "Running"))
        await asked(directory, "health", 1)
        run("ip link delete e0")
        plug_in("e1", process)
        error = await asyncio.wait_for(entering, 60)
        await asyncio.sleep(1)
        reports = (directory / "log").read_text().count('"event": "health"')
        print(error, reports, markers.holds(options.state_dir, markers.POOL, UUID))


async def notice(directory: Path) -> None:
    """Tell which of a NIC's changes is a loss."""
    del directory
    run("ip link add e0 type veth peer name p0")
    for link in ("p0", "e0", "lo"):
        run(f"ip link set {link} up")
    for command in (
        "ip address add 10.0.0.4/24 dev e0",
        "ip link set lo down",
        "ip link set p0 down",
        "ip link del e0",
    ):
        with LinkWatch() as links:
            run(command)
            async with asyncio.timeout(30):
                await links.wait_for_change()
            with suppress(TimeoutError):  # the kernel takes its time to tell of a carrier
                await asyncio.wait_for(links.wait_for_loss(), 2)
            print(command, "| lost" if links.has_lost else "| kept")
        if "p0" in command:
            with LinkWatch() as links:
                run("ip link set p0 up")
                while not links_in_use():  # of a carrier, too
                    await links.wait_for_change()


STORIES = {"notice": notice, "report-once": report_once}


if __name__ == "__main__":
    _, story, place = sys.argv
    run("ip link set lo up")
    if story in STORIES:
        asyncio.run(STORIES[story](Path(place)))
    else:
        asyncio.run(find_owner(Path(place), story))
