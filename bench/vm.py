"""Measure provisioners side by side, each in the same VM with the same media: `make bench-vm`.

    measure AGENT   boots, and adds the figures to what is in build/bench-vm for these conditions
    table           prints the medians of what is there

The first boot is as an image has it, and its times are the guest's own, taken outside: that of Ready from the packet
that carried it, which has the guest's clock in TCP's time stamp; that of the first login from what /proc/uptime said to
it, and logins are tried twice a second from the start on. With `--costs` there is a second boot, in which the units are
started when the system has come up and nothing else runs: that takes the same times, and counts what the units cost, by
their control groups. Needs root.

With `--counted` the guest's clock goes by the instructions that QEMU has carried out, and by the clock on the wall only
while the guest waits, so that other load on this machine does not scatter the times. Its processors then take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import shutil
import statistics
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from minprov.emulator.guest.login import Login
from tests.vm import recipes
from tests.vm.image import PROJECT, ensure_base, ensure_form, ensure_package
from tests.vm.lab import HOSTNAME, USERNAME, Guest, boot, key_pair
from tests.vm.recipes import COMMON, OWN_INITRAMFS, SYSTEMD, Recipe

RESULTS = PROJECT / "build/bench-vm"
# Before the bus is there, the question is answered at once.
SETTLED = "until systemctl is-system-running --wait | grep -qx 'running\\|degraded'; do sleep 1; done"


AZURE_INIT = ("azure-init", "--version", "0.1.1", "--locked", "--root", PROJECT / "build/azure-init")


# The platform's documents have it in every VM that has a password, and the media then says all that there is.
PASSWORDS = {"disable-password-authentication": False}


class Agent(NamedTuple):
    """A provisioner: the guest that has it, its units, the first of which starts first, and what its VM is without."""

    recipe: Recipe
    units: tuple[str, ...]
    vm: Mapping[str, object] = PASSWORDS


AGENTS = {
    "minprov": Agent(recipes.NETWORKD, ("minprov.service",)),
    "minprov-static": Agent(recipes.STATIC, ("minprov.service",)),
    # Without a password IMDS is all that it asks, which is its best case: else it mounts the media and restarts sshd.
    "azure-init": Agent(
        recipes.AZURE_INIT, ("azure-init.service",), {"password": None, "disable-password-authentication": True}
    ),
    "cloud-init": Agent(
        recipes.CLOUD_INIT,
        ("cloud-init-local.service", "cloud-init.service", "cloud-config.service", "cloud-final.service"),
    ),
    "waagent": Agent(recipes.WAAGENT, ("walinuxagent.service",)),
}


class Conditions(NamedTuple):
    """What kind of VM all are booted in."""

    processors: int
    counted: bool
    bare: bool
    """Whether the initramfs finds the root disk alone, and udev the optical drive and the network card."""

    @property
    def name(self) -> str:
        """Return what the results of these conditions are kept under."""
        return f"processors-{self.processors}{'-counted' * self.counted}{'-bare' * self.bare}"


ROWS = (
    ("kernel start → agent start", "start", "{:.1f} s"),
    ("agent start → Ready", "ready_after", "{:.1f} s"),
    ("kernel start → all applied", "applied", "{:.1f} s"),
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


# What a VM was created with, and how to see that it was applied.
APPLIED = {
    "hostname": f"test $(hostname) = {HOSTNAME}",
    "user": f"id {USERNAME}",
    "password": f"getent shadow {USERNAME} | grep ':[$]'",
    "keys": f"test -s /home/{USERNAME}/.ssh/authorized_keys",
    "sudo": f"sudo -l -U {USERNAME} | grep ALL",
    "customData": "ls /var/lib/minprov/custom-data /var/lib/cloud/instance/user-data.txt /var/lib/waagent/CustomData "
    "2>&- | grep .",
}
# The time, of the kernel's clock, at which the last of these changed; all of them replace them or write them once.
LAST_CHANGE = (
    f"stat -c %.Z /etc/hostname /etc/passwd /etc/shadow /home/{USERNAME}/.ssh/authorized_keys | sort -n | tail -n 1;"
    " date +%s.%N; cat /proc/uptime"
)


async def measure(agent: Agent, conditions: Conditions, *, costs: bool) -> dict[str, Any]:
    """Boot once, or twice; return the figures of `ROWS`, and what was applied."""
    name = agent.recipe.name
    image = replace(agent.recipe, name=f"{name}-bare" if conditions.bare else f"{name}-timed")
    if not conditions.bare:  # as on an image's own first boot
        image = replace(
            image,
            packages=(*image.packages, "initramfs-tools"),
            commands=(*image.commands, *OWN_INITRAMFS),
            append="root=/dev/vda rw",
        )
    with tempfile.TemporaryDirectory() as directory:
        packets = Path(directory, "packets")
        # Time stamps that begin with the clock, and not anywhere.
        append = "sysctl.net.ipv4.tcp_timestamps=2"
        devices = (
            *("-smp", str(conditions.processors)),
            *(("-icount", "shift=1") if conditions.counted else ()),
            *("-object", f"filter-dump,id=packets,netdev=net0,file={packets}"),
        )
        async with boot(image, name=f"bench-{name}", vm=agent.vm, append=append, devices=devices) as guest:
            figures = await time_provisioning(guest, agent, packets)
        if costs:
            later = replace(
                image,
                name=f"{image.name}-measured",
                trees=(*image.trees, "measured"),
                commands=(*image.commands, f"systemctl disable --quiet {' '.join(agent.units)}"),
            )
            async with boot(later, name=f"bench-{name}-measured", vm=agent.vm, append=append, devices=devices) as guest:
                await guest.machine.shell_ready(within=300)
                await guest.ask(SETTLED, within=300)
                await guest.ask(f"systemctl start --no-block {' '.join(agent.units)}")
                alone = await time_provisioning(guest, agent, packets)
                figures |= {f"alone_{name}": alone[name] for name in ("ready_after", "usable_after")}
                figures |= await count_costs(guest, agent)
                figures["size"] = added_size(agent.recipe)
    return figures


async def time_provisioning(guest: Guest, agent: Agent, packets: Path) -> dict[str, Any]:
    """Return when things happened, in seconds after the kernel started, and how long after one another."""
    login = asyncio.create_task(first_login(guest))
    report = await guest.platform.reported("Ready", "NotReady", within=900)
    if report["state"] != "Ready":
        raise SystemExit(f"not Ready: {report}")
    usable = await login
    await guest.ask(SETTLED, within=300)
    shown = await guest.ask(f"systemctl show --property=ExecMainStartTimestampMonotonic --value {agent.units[0]}")
    start, ready = int(shown.output) / 1e6, await asyncio.to_thread(ready_sent, packets)
    changed, now, uptime, _ = map(float, (await guest.ask(LAST_CHANGE)).output.split())
    applied = [name for name, command in APPLIED.items() if (await guest.ask(command)).status == 0]
    return {
        "start": start,
        "applied": changed - (now - uptime),
        "ready": ready,
        "ready_after": ready - start,
        "usable": usable,
        "usable_after": usable - start,
        "usable_after_ready": usable - ready,
        "what": ", ".join(applied),
    }


async def first_login(guest: Guest) -> float:
    """Return when a login by key first worked, by the guest's clock."""
    answer = await Login.with_key(guest.network, USERNAME, key_pair()).succeed("cat /proc/uptime", within=900)
    if answer.status:
        raise SystemExit(f"no login: {answer.lines}")
    return float(answer.output.split()[0])


def ready_sent(capture: Path) -> float:
    """Return when the guest sent its report, by its clock: from a capture of packets, in pcap's first format."""
    for packet in packets_of(capture.read_bytes()):
        if b"<State>Ready</State>" in packet:
            ip = packet[packet.index(b"\x08\0E") + 2 :]  # behind Ethernet's header, before which QEMU 7 leaves virtio's
            tcp = ip[(ip[0] & 15) * 4 :]
            options = tcp[20 : (tcp[12] >> 4) * 4]
            while options[0] != 8:  # its time stamp (RFC 7323); 1 is padding, and alone has no length
                options = options[1 if options[0] == 1 else options[1] :]
            return float(struct.unpack_from("!I", options, 2)[0]) / 1000
    raise SystemExit("Ready is in none of the packets")


def packets_of(capture: bytes) -> Iterator[bytes]:
    """Return the packets one after another (https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html)."""
    at = 24
    while at < len(capture):
        length = struct.unpack_from("=I", capture, at + 8)[0]
        yield capture[at + 16 : at + 16 + length]
        at += 16 + length


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
    own = sum((PROJECT / source).stat().st_size for source, _ in recipe.files) // 1024
    if recipe.minprov:
        package = next(ensure_package().glob("minprov_*.deb"))
        shown = subprocess.run(["dpkg-deb", "--field", package, "Installed-Size"], capture_output=True, check=True)
        own += int(shown.stdout)
    if recipe.form:
        with tarfile.open(next(ensure_form(recipe.form).glob("*.tar.gz"))) as form:
            own += sum(member.size for member in form) // 1024
    return (installed_size(recipe.packages) + own - installed_size((*COMMON, *SYSTEMD))) / 1024


def installed_size(packages: Iterable[str]) -> int:
    """Return the sum of Debian's Installed-Size, in KiB, over packages and all that they depend on."""
    with tarfile.open(ensure_base(packages)) as archive:
        status = archive.extractfile("./var/lib/dpkg/status")
        assert status
        lines = status.read().decode().splitlines()
    return sum(int(line.partition(": ")[2]) for line in lines if line.startswith("Installed-Size: "))


def make_azure_init() -> bool:
    """Build azure-init, of which there is no Debian package; False without cargo."""
    cargo = shutil.which("cargo")
    if cargo:
        subprocess.run([cargo, "install", "--quiet", *AZURE_INIT], check=True)
    return cargo is not None


def table(directory: Path) -> str:
    """Return the medians of one kind of VM as a table, with the ratios that are promised."""
    figures: dict[str, dict[str, Any]] = {}
    for name in AGENTS:
        if (path := directory / f"{name}.json").exists():
            runs = [json.loads(line) for line in path.read_text().splitlines()]
            keys = set(itertools.chain(*runs)) - {"what"}
            figures[name] = {key: statistics.median(run[key] for run in runs if key in run) for key in keys}
            figures[name] |= {"what": runs[-1]["what"], "runs": len(runs)}
    lines = [f"| {directory.name} | {' | '.join(figures)} |", "|---|" + "---:|" * len(figures)]
    for title, key, form in (*ROWS, ("applied", "what", "{}"), ("runs", "runs", "{}")):
        cells = [form.format(each[key]) if key in each else "" for each in figures.values()]
        lines += [f"| {title} | {' | '.join(cells)} |"] if any(cells) else []
    for title, key, _ in ROWS:
        if key in ("ready_after", "alone_ready_after") and "minprov" in figures:
            for name, budget in BUDGETS:
                if key in figures.get(name, ()) and key in figures["minprov"]:
                    ratio = figures["minprov"][key] / figures[name][key]
                    lines.append(f"{title}, minprov : {name}: {ratio:.2f} (budget {budget})")
    return "\n".join(lines)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.vm")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("table")
    measuring = commands.add_parser("measure")
    measuring.add_argument("agent", choices=AGENTS)
    measuring.add_argument("--processors", type=int, default=1)
    measuring.add_argument("--counted", action="store_true", help="the guest's time goes by its instructions")
    measuring.add_argument("--bare", action="store_true", help="the initramfs finds neither drive nor network card")
    measuring.add_argument("--costs", action="store_true", help="boot once more, and count what the units cost")
    given = parser.parse_args()
    if given.command == "table":
        print("\n\n".join(map(table, sorted(RESULTS.iterdir()))))
        return
    if given.agent == "azure-init" and not make_azure_init():
        print("azure-init is left out: there is no cargo to build it with")
        return
    conditions = Conditions(given.processors, given.counted, given.bare)
    figures = asyncio.run(measure(AGENTS[given.agent], conditions, costs=given.costs))
    directory = RESULTS / conditions.name
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{given.agent}.json").open("a") as results:
        results.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
