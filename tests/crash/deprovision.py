"""Cut `minprov deprovision` at its effects: ``python -m tests.crash.deprovision``.

What is left is found twice. By the next boot: then the administrator can log in, as before or provisioned anew. And by
a second deprovisioning, which finishes what the first one began.
"""

from __future__ import annotations

import argparse
import compileall
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import minprov
from minprov.errors import Reason
from tests.harness.linux import CLONE_NEWNS, detach, unshare
from tests.harness.machine import Image

from .campaign import everywhere, kills_of, spread, when_durable
from .effects import SUPPORTED, Effect, Effects
from .machines import FILE_SYSTEMS, FileSystem, MachineOnDisk, alone, copy_disk, each_alone, make_disk
from .tracer import Stop
from .trial import (
    ENVIRONMENT,
    Kill,
    Platform,
    Scenario,
    State,
    command_of,
    differences,
    matches,
    power_on,
    prepare,
    run_to,
    run_traced,
    state_of,
)

EXT4, _, BTRFS = FILE_SYSTEMS
# Without what is not the image's, so that the points are about what minprov and a VM leave.
IMAGE = Scenario(
    "as-built",
    """
    rm -rf /root/.*history /root/.viminfo /root/.lesshst /root/.ssh
    find /var/log /var/cache/apt/archives /var/lib/dhcp /var/lib/systemd -mindepth 1 -delete || true
    rm -rf /var/lib/dbus/machine-id /var/crash /etc/resolv.conf /var/lib/NetworkManager /etc/ssh/ssh_host_*
    """,
)
ARGUMENTS = ["deprovision", "--user", "--yes"]
LOGIN = (
    *("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/sudoers.d/*", "/etc/ssh/sshd_config.d/*"),
    *("/home/azureuser", "/home/azureuser/.ssh", "/home/azureuser/.ssh/authorized_keys"),
)
ELSEWHERE = "/var/cache/apt/*"  # is the host's, which may be installing something
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"


class Kind(NamedTuple):
    """Cuts of one kind. What had reached the disk is there at the next boot; with `killed`, all that was written."""

    name: str
    file_system: FileSystem
    killed: bool = False


KINDS = (
    Kind("killed", EXT4, killed=True),
    Kind("power-cut-ext4", EXT4),
    Kind("power-cut-btrfs", BTRFS),
)


class Undisturbed(NamedTuple):
    """A provisioned machine, and what a deprovisioning that nobody cuts does, and makes of it."""

    provisioned: State
    effects: list[Effect]
    deprovisioned: State


def provision(image: Image, kind: Kind, disk: str) -> State:
    """Make the disk of a provisioned machine."""
    machine = MachineOnDisk(image, kind.file_system, disk)
    power_on(machine)
    with Platform():
        _run(machine, command_of(machine)).check_returncode()
    _sync(machine)
    return state_of(machine)


def observe(image: Image, kind: Kind, disk: str) -> tuple[list[Effect], State]:
    """Deprovision without a cut, and return what was done, in order, and what is different from the image then."""
    machine = MachineOnDisk(image, kind.file_system, disk)
    finder = Effects(machine.root)
    effects: list[Effect] = []

    def at_stop(stop: Stop) -> None:
        effect = finder.find(stop)
        if effect and not stop.done:
            effects.append(effect)

    status, output = run_traced(machine, [*machine.program, *ARGUMENTS], at_stop)
    assert status == os.EX_OK, output
    return effects, state_of(machine)


def cut(image: Image, kind: Kind, disk: str, kill: Kill, copies: list[str]) -> bool:
    """Deprovision to a point, copy what is left, and return whether it was met."""
    machine = MachineOnDisk(image, kind.file_system, disk)
    struck, _, _ = run_to(machine, [*machine.program, *ARGUMENTS], kill)
    if kind.killed:
        _sync(machine)
    for copy in copies:
        copy_disk(disk, copy)
    return struck is not None


def boot(image: Image, kind: Kind, disk: str, undisturbed: Undisturbed) -> list[str]:
    """Boot what a cut has left, and return what is in the way of a login."""
    machine = MachineOnDisk(image, kind.file_system, disk)
    power_on(machine)
    with Platform():
        ended = _run(machine, command_of(machine))
    if ended.returncode:
        return [f"the next boot: exit {ended.returncode}: {ended.stderr}"]
    found = state_of(machine)
    paths = [path for path in differences(found, undisturbed.provisioned) if matches(path, LOGIN)]
    faults = [f"for a login {path} is {found.get(path)}, not {undisturbed.provisioned.get(path)}" for path in paths]
    if HOST_KEY not in found:
        faults.append("no host key")
    return faults


def deprovision_again(image: Image, kind: Kind, disk: str, undisturbed: Undisturbed) -> list[str]:
    """Deprovision what a cut has left, and return what is left then."""
    machine = MachineOnDisk(image, kind.file_system, disk)
    ended = _run(machine, [*machine.program, *ARGUMENTS])
    # Cut off after all was done, it does not take the machine for one that was provisioned.
    if ended.returncode not in (os.EX_OK, Reason.NOT_PROVISIONED.exit_status):
        return [f"the second one: exit {ended.returncode}: {ended.stdout}{ended.stderr}"]
    found = state_of(machine)
    return [
        f"after the second one {path} is {found.get(path)}, not {undisturbed.deprovisioned.get(path)}"
        for path in differences(found, undisturbed.deprovisioned, (ELSEWHERE,))
    ]


def try_cut(image: Image, kind: Kind, template: str, undisturbed: Undisturbed, kill: Kill) -> list[str]:
    """Cut a deprovisioning off, and return what is wrong afterwards."""
    with tempfile.TemporaryDirectory(dir=image.directory) as directory:
        own, *copies = (f"{directory}/{name}" for name in ("own", "boot", "again"))
        copy_disk(template, own)
        if not alone(partial(cut, image, kind, own, kill, copies)):
            return ["it did not come by there"]
        return [
            *alone(partial(boot, image, kind, copies[0], undisturbed)),
            *alone(partial(deprovision_again, image, kind, copies[1], undisturbed)),
        ]


def _run(machine: MachineOnDisk, command: list[str]) -> subprocess.CompletedProcess[str]:
    argv = ["chroot", machine.root, *command]
    return subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def _sync(machine: MachineOnDisk) -> None:
    [layer] = [layer for layer in machine.layers if layer.place == "/"]
    subprocess.run(["sync", "--file-system", layer.upper], check=True)


def main() -> int:
    """Try the points of each kind, print the figures, and return whether anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.deprovision")
    parser.add_argument("--points", type=int, metavar="N", help="try so many of each kind (default: all)")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="these only: " + ", ".join(k.name for k in KINDS))
    options = parser.parse_args()
    if os.geteuid() != 0 or not SUPPORTED:
        parser.error("needs root, and x86-64, whose system calls it knows")
    line = "{:<16}{:>8}{:>8}{:>12}{:>10}"
    print(line.format("kind", "points", "tried", "mismatches", "seconds"))
    compileall.compile_dir(os.path.dirname(minprov.__file__), quiet=2)
    unshare(CLONE_NEWNS)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="minprov-crash-") as directory, ExitStack() as stack:
        image = Image(directory, [sys.executable, "-m", "minprov"], privileged=True)
        stack.callback(detach, directory)
        image = image.upon(alone(partial(prepare, image, IMAGE)))
        for kind in KINDS:
            if kind.name in (options.kinds or {kind.name}):
                wrong += _try_kind(image, kind, options.points, line)
    return 1 if wrong else 0


def _try_kind(image: Image, kind: Kind, number: int | None, line: str) -> int:
    begun, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory(dir=image.directory) as directory:
        template, observed = f"{directory}/template", f"{directory}/observed"
        make_disk(kind.file_system, template)
        provisioned = alone(partial(provision, image, kind, template))
        copy_disk(template, observed)
        effects, deprovisioned = alone(partial(observe, image, kind, observed))
        undisturbed = Undisturbed(provisioned, effects, deprovisioned)
        points = (everywhere if kind.killed else when_durable)(kills_of(effects))
        tried = spread(points, number)
        works = [partial(try_cut, image, kind, template, undisturbed, kill) for kill in tried]
        for index, faults in each_alone(works):
            if faults:
                wrong += 1
                print(f"{kind.name}: {tried[index]}", *faults, sep="\n  ", flush=True)
    print(line.format(kind.name, len(points), len(tried), wrong, f"{time.monotonic() - begun:.0f}"), flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
