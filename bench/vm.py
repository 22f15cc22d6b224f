"""Measure provisioners side by side, each in the same VM with the same media: `make bench-vm`.

    measure AGENT   boots twice, and adds the figures to build/bench-vm/AGENT.json
    table           prints the medians of what is there

The first boot is as an image has it, and its times are taken outside: reports as the emulated platform saw them, logins
as ssh(1) made them, twice a second from the start on. The guest gives its clock, and when the agent's unit started. In
the second boot the units are started when the system has come up and nothing else runs: that takes the same times, and
counts what the units cost, by their control groups. Needs root.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from minprov.emulator.guest.login import Login
from tests.vm import recipes
from tests.vm.image import PROJECT, ensure_base, ensure_package
from tests.vm.lab import USERNAME, Guest, boot, key_pair
from tests.vm.recipes import COMMON, OWN_INITRAMFS, SYSTEMD, Recipe

RESULTS = PROJECT / "build/bench-vm"
# Before the bus is there, the question is answered at once.
SETTLED = "until systemctl is-system-running --wait | grep -qx 'running\\|degraded'; do sleep 1; done"


class Agent(NamedTuple):
    """A provisioner: the guest that has it, and its units, the first of which starts first."""

    recipe: Recipe
    units: tuple[str, ...]


AGENTS = {
    "minprov": Agent(recipes.NETWORKD, ("minprov.service",)),
    "cloud-init": Agent(
        recipes.CLOUD_INIT,
        ("cloud-init-local.service", "cloud-init.service", "cloud-config.service", "cloud-final.service"),
    ),
    "waagent": Agent(recipes.WAAGENT, ("walinuxagent.service",)),
}

ROWS = (
    ("kernel start → agent start", "start", "{:.1f} s"),
    ("agent start → Ready", "ready_after", "{:.1f} s"),
    ("kernel start → Ready", "ready", "{:.1f} s"),
    ("kernel start → first SSH login", "usable", "{:.1f} s"),
    ("Ready → first SSH login", "usable_after_ready", "{:.1f} s"),
    ("in a VM that is up: agent start → Ready", "alone_ready_after", "{:.1f} s"),
    ("in a VM that is up: agent start → first SSH login", "alone_usable_after", "{:.1f} s"),
    ("CPU time of its units", "cpu", "{:.1f} s"),
    ("peak memory of a unit, page cache included", "memory", "{:.0f} MiB"),
    ("written to disk by its units", "written", "{:.0f} KiB"),
    ("installed size added", "size", "{:.0f} MiB"),
)
BUDGETS = (("cloud-init", "1/3"), ("waagent", "1/5"))


async def measure(agent: Agent) -> dict[str, float]:
    """Boot twice; return the figures of `ROWS`."""
    name = agent.recipe.name
    # As on an image's own first boot, the initramfs finds the drive and the network card.
    image = replace(
        agent.recipe,
        packages=(*agent.recipe.packages, "initramfs-tools"),
        commands=(*agent.recipe.commands, *OWN_INITRAMFS),
        append="root=/dev/vda rw",
    )
    async with boot(replace(image, name=f"{name}-timed"), name=f"bench-{name}") as guest:
        times = await time_provisioning(guest, agent)
    later = replace(
        image,
        name=f"{name}-measured",
        trees=(*image.trees, "measured"),
        commands=(*image.commands, f"systemctl disable --quiet {' '.join(agent.units)}"),
    )
    async with boot(later, name=f"bench-{name}-measured") as guest:
        await guest.machine.shell_ready(within=300)
        await guest.ask(SETTLED, within=300)
        await guest.ask(f"systemctl start --no-block {' '.join(agent.units)}")
        alone = await time_provisioning(guest, agent)
        costs = await count_costs(guest, agent)
    return {
        **times,
        **{f"alone_{name}": alone[name] for name in ("ready_after", "usable_after")},
        **costs,
        "size": added_size(agent.recipe),
    }


async def time_provisioning(guest: Guest, agent: Agent) -> dict[str, float]:
    """Return when things happened, in seconds after the kernel started, and how long after one another."""
    login = asyncio.create_task(first_login(guest))
    report = await guest.platform.reported("Ready", "NotReady", within=400)
    if report["state"] != "Ready":
        raise SystemExit(f"not Ready: {report}")
    logged_in = await login
    await guest.ask(SETTLED, within=300)
    kernel_start = await clock_difference(guest)
    shown = await guest.ask(f"systemctl show --property=ExecMainStartTimestampMonotonic --value {agent.units[0]}")
    start = int(shown.output) / 1e6
    ready, usable = report["ms"] / 1000 - kernel_start, logged_in - kernel_start
    return {
        "start": start,
        "ready": ready,
        "ready_after": ready - start,
        "usable": usable,
        "usable_after": usable - start,
        "usable_after_ready": usable - ready,
    }


async def first_login(guest: Guest) -> float:
    """Return when a login by key first worked, by this machine's clock."""
    answer = await Login.with_key(guest.network, USERNAME, key_pair()).succeed("true", within=400)
    if answer.status:
        raise SystemExit(f"no login: {answer.lines}")
    return time.monotonic()


async def clock_difference(guest: Guest) -> float:
    """Return when the guest's clock began, by this machine's: from the quickest of some questions."""
    best = (float("inf"), 0.0)
    for _ in range(5):
        asked = time.monotonic()
        uptime = float((await guest.ask("cat /proc/uptime")).output.split()[0])
        took = time.monotonic() - asked
        best = min(best, (took, asked + took / 2 - uptime))
    return best[1]


async def count_costs(guest: Guest, agent: Agent) -> dict[str, float]:
    """Return what the agent's units cost until they had ended; waagent's does not end, and is measured as it is."""
    await guest.ask(f"systemctl start {' '.join(agent.units)}", within=300)
    await guest.ask("measured walinuxagent.service")
    units = []
    for unit in agent.units:
        lines = (await guest.ask(f"cat /run/measured/{unit}")).lines
        units.append({name: float(value) for name, value in (line.split() for line in lines)})
    return {
        "memory": max(unit["memory"] for unit in units) / 2**20,
        "cpu": sum(unit["cpu"] for unit in units) / 1e6,
        "written": sum(unit["written"] for unit in units) / 1024,
    }


def added_size(recipe: Recipe) -> float:
    """Return the installed size, in MiB, of what the recipe has beyond a system without Python and provisioner."""
    own = 0
    if recipe.minprov:
        package = next(ensure_package().glob("minprov_*.deb"))
        shown = subprocess.run(["dpkg-deb", "--field", package, "Installed-Size"], capture_output=True, check=True)
        own = int(shown.stdout)
    return (installed_size(recipe.packages) + own - installed_size((*COMMON, *SYSTEMD))) / 1024


def installed_size(packages: Iterable[str]) -> int:
    """Return the sum of Debian's Installed-Size, in KiB, over packages and all that they depend on."""
    with tarfile.open(ensure_base(packages)) as archive:
        status = archive.extractfile("./var/lib/dpkg/status")
        assert status
        lines = status.read().decode().splitlines()
    return sum(int(line.partition(": ")[2]) for line in lines if line.startswith("Installed-Size: "))


def table() -> str:
    """Return the medians as a table, with the ratios that are promised."""
    figures: dict[str, dict[str, float]] = {}
    for name in AGENTS:
        runs = [json.loads(line) for line in (RESULTS / f"{name}.json").read_text().splitlines()]
        figures[name] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    lines = [f"| | {' | '.join(AGENTS)} |", "|---|" + "---:|" * len(AGENTS)]
    for title, key, form in ROWS:
        lines.append(f"| {title} | {' | '.join(form.format(figures[name][key]) for name in AGENTS)} |")
    for title, key, _ in ROWS:
        if key in ("ready_after", "alone_ready_after"):
            for name, budget in BUDGETS:
                ratio = figures["minprov"][key] / figures[name][key]
                lines.append(f"{title}, minprov : {name}: {ratio:.2f} (budget {budget})")
    return "\n".join(lines)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", name]:
            RESULTS.mkdir(parents=True, exist_ok=True)
            with Path(RESULTS / f"{name}.json").open("a") as results:
                results.write(json.dumps(asyncio.run(measure(AGENTS[name]))) + "\n")
        case ["table"]:
            print(table())
        case _:
            raise SystemExit("usage: python -m bench.vm measure minprov|cloud-init|waagent, or table")
