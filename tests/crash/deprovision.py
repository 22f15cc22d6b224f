"""Cut `minprov deprovision` at its effects: ``python -m tests.crash.deprovision``.

What is left is found twice. By the next boot: then the administrator can log in, as before or provisioned anew. And by
a second deprovisioning, which finishes what the first one began.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import minprov
from minprov.errors import Reason
from tests.harness.linux import CLONE_NEWNS, detach, unshare
from tests.harness.machine import Image
from tests.harness.tracer import Stop

from .campaign import BUSYBOX, everywhere, kills_of, of_program, spread, when_durable
from .command_line import read_command_line
from .effects import Effect, Effects
from .machines import FILE_SYSTEMS, FileSystem, MachineOnDisk, alone, copy_disk, each_alone, make_disk
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

if TYPE_CHECKING:
    from collections.abc import Callable

EXT4, _, BTRFS = FILE_SYSTEMS
# Without what is not the image's, so that the points are about what minprov and a VM leave.
AS_BUILT = Scenario(
    "as-built",
    """
    rm -rf /root/.*history /root/.viminfo /root/.lesshst /root/.ssh
    find /var/log /var/cache/apt/archives /var/lib/dhcp /var/lib/systemd -mindepth 1 -delete || true
    rm -rf /var/lib/dbus/machine-id /var/crash /etc/resolv.conf /var/lib/NetworkManager /etc/ssh/ssh_host_*
    """,
)
WITH_BUSYBOX = Scenario("with-busybox", AS_BUILT.prepare + BUSYBOX.prepare)
ARGUMENTS = ["deprovision", "--user", "--yes"]
LOGIN = (
    *("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/sudoers.d/*", "/etc/ssh/sshd_config.d/*"),
    *("/home/azureuser", "/home/azureuser/.ssh", "/home/azureuser/.ssh/authorized_keys"),
)
ELSEWHERE = "/var/cache/apt/*"  # is the host's, which may be installing something
HOST_KEYS = "/etc/ssh/ssh_host_*_key"


class Kind(NamedTuple):
    """Cuts of one kind. What had reached the disk is there at the next boot; with `killed`, all that was written."""

    name: str
    choose: Callable[[list[Kill]], list[Kill]]
    file_system: FileSystem = EXT4
    killed: bool = False
    image: Scenario = AS_BUILT


KINDS = (
    Kind("killed", everywhere, killed=True),
    Kind("busybox", of_program("busybox"), killed=True, image=WITH_BUSYBOX),
    Kind("power-cut-ext4", when_durable),
    Kind("power-cut-btrfs", when_durable, BTRFS),
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
    if not any(matches(path, (HOST_KEYS,)) for path in found):
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
    points, names = read_command_line("tests.crash.deprovision", [kind.name for kind in KINDS])
    line = "{:<16}{:>8}{:>8}{:>12}{:>10}"
    print(line.format("kind", "points", "tried", "mismatches", "seconds"))
    compileall.compile_dir(os.path.dirname(minprov.__file__), quiet=2)
    unshare(CLONE_NEWNS)
    wrong = 0
    kinds = [kind for kind in KINDS if kind.name in names]
    with tempfile.TemporaryDirectory(prefix="minprov-crash-") as directory, ExitStack() as stack:
        image = Image(directory, [sys.executable, "-m", "minprov"], privileged=True)
        stack.callback(detach, directory)
        layers = {scenario: alone(partial(prepare, image, scenario)) for scenario in {kind.image for kind in kinds}}
        for kind in kinds:
            wrong += _try_kind(image.upon(layers[kind.image]), kind, points, line)
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
        points = kind.choose(kills_of(effects))
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
