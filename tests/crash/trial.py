"""One machine: a run that is killed at a point, a run that is not, and what must hold after each.

The program runs as on a VM: at the platform's real addresses, with the machine's own account tools. Killed is all that
it started, as when the service manager kills a unit, or itself alone.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from minprov.emulator.platform import Emulator
from minprov.emulator.sample import sample_media
from minprov.emulator.vm import SAMPLE_VM
from tests.harness.changes import describe, find_changes, take_snapshot
from tests.harness.machine import IMDS, WIRESERVER, Image, Machine
from tests.harness.tracer import Blow, Stop, trace

from .effects import CALLS, REMOVES, Effect, Effects, find_unsynced
from .machines import MachineOnDisk, alone, copy_disk, make_disk

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.changes import Entry

    from .machines import FileSystem

MEDIA = "/mnt/media"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
VM_ID = SAMPLE_VM.vm_id
READY, APPLIED = f"/var/lib/minprov/ready/{VM_ID}", f"/var/lib/minprov/applied/{VM_ID}"
# What has another content after each run, or none that matters.
OF_THE_MOMENT = (
    "/var/lib/minprov/report.json",
    "/var/lib/minprov/manifest.json",
    "/etc/.pwd.lock",
    "/etc/*-",
    "/var/log/*",
    "/run*",
    "/etc/ssh/ssh_host_*",
)
# What is not there for anyone to read: it is renamed, or removed, once it is whole.
TEMPORARY = (
    "*/.*.minprov",
    "*/.*.minprov/*",
    "/etc/*.lock",
    "/etc/*+",
    "/etc/*-",
    "/etc/*.[0-9]*",
    "*/.*.minprov.pub",
    "/var/lib/minprov/journal",
)
# What is written once Ready has been accepted, or each time.
AFTER_READY = (READY, os.path.dirname(READY), "/var/lib/minprov/report.json")

TERMINATION_LIMIT = 2.0
"""Seconds within which a run that is terminated has told so and ended."""

State = dict[str, list[str]]


class Scenario(NamedTuple):
    """A system to provision, made by a shell command from the image that all machines start from.

    The command runs without a network; MINPROV is the program, with the media that the scenario's run has.
    """

    name: str
    prepare: str = "true"


class Kill(NamedTuple):
    """A signal at the n-th occurrence of an effect, before or after it; `alone` spares what the program started."""

    effect: Effect
    occurrence: int
    after: bool
    signal: int = signal.SIGKILL
    alone: bool = False

    def __str__(self) -> str:
        when = "after" if self.after else "before"
        return f"{signal.Signals(self.signal).name} {when} {self.effect} #{self.occurrence}"


@dataclass
class Undisturbed:
    """What a run that nobody kills does, in order, and what it makes of the machine.

    `whole` has all that a file may contain at any time: what it had whenever something was renamed to its place.
    `unsynced` is what a power cut might yet have taken back when it was put on record that everything is applied.
    """

    effects: list[Effect] = field(default_factory=list)
    whole: dict[str, list[list[str]]] = field(default_factory=dict)
    state: State = field(default_factory=dict)
    accounts: str = ""
    unsynced: list[str] = field(default_factory=list)


class Verdict(NamedTuple):
    """What came of a trial: whether the run met the point, what was wrong, and how often Ready was reported."""

    met: bool
    faults: list[str]
    ready: int


class Platform(threading.Thread):
    """The emulated platform at its real addresses, beside the thread that traces."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listening = threading.Event()
        self._emulator: Emulator

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        emulator = Emulator(
            SAMPLE_VM, wireserver_address=(WIRESERVER, 80), imds_address=(IMDS, 80), host_plugin_address=None
        )
        async with emulator as self._emulator:
            self._listening.set()
            await asyncio.Event().wait()

    def __enter__(self) -> Platform:
        self.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it: it ends with the machine."""

    @property
    def reported(self) -> list[str]:
        """The states that were reported so far."""
        return [report.state for report in self._emulator.health_reports]


def prepare(image: Image, scenario: Scenario) -> str:
    """Make the system of a scenario and return where its changes to the image are."""
    machine = Machine(image, tree=False)
    machine.show_firmware("gen2", VM_ID)
    with sample_media() as media:
        shutil.copyfile(media, machine.root + MEDIA)
    environment = {**ENVIRONMENT, "MINPROV": " ".join(command_of(machine))}
    command = ["chroot", machine.root, "/bin/sh", "-euc", scenario.prepare]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    [upper] = [layer.upper for layer in machine.layers if layer.place == "/"]
    directory = f"{image.directory}/{scenario.name}"
    subprocess.run(["cp", "--archive", upper, directory], check=True)
    return directory


def observe(image: Image) -> Undisturbed:
    """Run the program once and tell what it did."""
    seen = Undisturbed()
    machine = Machine(image, tree=False)
    effects = Effects(machine.root)

    def at_stop(stop: Stop) -> None:
        effect = effects.find(stop)
        if effect and not stop.done:
            seen.effects.append(effect)
        elif effect and effect.call.startswith("rename"):
            entry = take_snapshot(machine.layers).get(effect.target)
            if entry:
                seen.whole.setdefault(effect.target, []).append(_settle(effect.target, entry))

    power_on(machine)
    with Platform() as platform:
        _, output = run_traced(machine, command_of(machine), at_stop)
        assert platform.reported == ["Ready"], output
    seen.state = state_of(machine)
    seen.accounts = _check_accounts(machine)
    assert READY in seen.state, output
    before = takewhile(lambda effect: not effect.target.startswith(os.path.dirname(APPLIED)), seen.effects)
    seen.unsynced = sorted(path for path in find_unsynced(before) if not matches(path, (*TEMPORARY, *OF_THE_MOMENT)))
    return seen


def try_kill(image: Image, undisturbed: Undisturbed, kill: Kill) -> Verdict:
    """Kill a run at a point, look at what is left, run again, and look at the end."""
    machine = Machine(image, tree=False)
    power_on(machine)
    with Platform() as platform:
        return _run_again(machine, undisturbed, platform, _run_to(machine, kill))


def try_power_cut(image: Image, undisturbed: Undisturbed, kill: Kill, *, file_system: FileSystem) -> Verdict:
    """Do the same, but let the next run have nothing but what had reached the disk."""
    with tempfile.TemporaryDirectory(dir=image.directory) as directory:
        disk, found_later = f"{directory}/disk", f"{directory}/found"
        make_disk(file_system, disk)

        def until_the_cut() -> Killed:
            machine = MachineOnDisk(image, file_system, disk)
            power_on(machine)
            with Platform() as platform:
                killed = _run_to(machine, kill)
                copy_disk(disk, found_later)
                return killed._replace(reported=platform.reported)

        def after_it() -> Verdict:
            machine = MachineOnDisk(image, file_system, found_later)
            power_on(machine)
            with Platform() as platform:
                return _run_again(machine, undisturbed, platform, killed)

        killed = alone(until_the_cut)
        return alone(after_it)


class Killed(NamedTuple):
    """A run that was killed: whether it met the point, what was wrong by then, what it told to another platform.

    `spoken_for` if its last resort was left alive, which tells NotReady.
    """

    met: bool
    faults: list[str]
    reported: list[str]
    spoken_for: bool


def _run_to(machine: Machine, kill: Kill) -> Killed:
    """Run the program to a point."""
    struck, status, output = run_to(machine, command_of(machine), kill)
    faults = []
    if struck and kill.signal == signal.SIGTERM:
        seconds = time.monotonic() - struck
        if seconds > TERMINATION_LIMIT:
            faults.append(f"ended {seconds:.1f} s after the signal")
        faults += _check_termination(machine, os.waitstatus_to_exitcode(status), output)
    spoken_for = kill.alone and kill.signal == signal.SIGKILL
    return Killed(struck is not None, faults, reported=[], spoken_for=spoken_for)


def run_to(machine: Machine, command: list[str], kill: Kill) -> tuple[float | None, int, str]:
    """Run a command to a point, and return when it was met, if it was, with the wait status and what was printed."""
    effects = Effects(machine.root)
    occurrences = 0
    struck: float | None = None

    def at_stop(stop: Stop) -> Blow | None:
        nonlocal occurrences, struck
        if occurrences < kill.occurrence and effects.find(stop) == kill.effect and stop.done == kill.after:
            occurrences += 1
            if occurrences == kill.occurrence:
                struck = time.monotonic()
                return Blow(stop.first if kill.alone else -1, kill.signal)
        return None

    status, output = run_traced(machine, command, at_stop)
    return struck, status, output


def _check_termination(machine: Machine, status: int, output: str) -> list[str]:
    """A run that is terminated tells so; one that had told the platform already may come to its end."""
    report = _report(machine)
    error = report and report["error"]
    if status == os.EX_OK and report and report["outcome"] == "provisioned" and not error:
        return []
    if status == os.EX_TEMPFAIL and error and error["reason"] == "terminated by a signal":
        return []
    return [f"terminated: exit {status}, report {report}: {output}"]


def _run_again(machine: Machine, undisturbed: Undisturbed, platform: Platform, killed: Killed) -> Verdict:
    """Look at what a killed run left, run again, and look at the end."""
    left = state_of(machine)
    faults = [*killed.faults, *_half_written(left, undisturbed)]
    try:
        _report(machine)
    except ValueError as error:
        faults.append(f"half written: the report: {error}")
    if output := _run(machine):
        faults.append(output)
    reported = killed.reported + platform.reported
    if killed.spoken_for and reported[:1] == ["NotReady"]:
        del reported[0]
    faults += [f"reported {state}" for state in reported if state != "Ready"]
    ready = reported.count("Ready")
    if ready not in ((1,) if READY in left else (1, 2)):
        faults.append(f"reported Ready {ready} times")
    if ready == 2 or READY in left:
        not_yet = differences(left, undisturbed.state, (*TEMPORARY, *AFTER_READY))
        faults += [f"Ready before {path} was applied" for path in not_yet]
    ended = state_of(machine)
    faults += [
        f"in the end {path} is {ended.get(path)}, not {undisturbed.state.get(path)}"
        for path in differences(ended, undisturbed.state)
    ]
    if (accounts := _check_accounts(machine)) != undisturbed.accounts:
        faults.append(f"the account database: {accounts}")
    return Verdict(killed.met, faults, ready)


def power_on(machine: Machine) -> None:
    """Give a machine its firmware and a link."""
    machine.show_firmware("gen2", VM_ID)
    machine.raise_interface()


def command_of(machine: Machine) -> list[str]:
    """Return the command of a first boot."""
    return [*machine.program, "--media", MEDIA, "--timeout", "30"]


def run_traced(machine: Machine, command: list[str], at_stop: Callable[[Stop], Blow | None]) -> tuple[int, str]:
    """Run a command in the machine under the tracer and return its wait status and what it printed."""
    with open(os.memfd_create("output"), "w+", encoding="utf-8", errors="replace") as output:

        def start() -> None:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.chroot(machine.root)
            os.chdir("/")
            os.execve(command[0], command, ENVIRONMENT)

        status = trace(start, {number: call.flags for number, call in CALLS.items()}, at_stop)
        output.seek(0)
        return status, output.read()


def _run(machine: Machine) -> str:
    """Run the program as it is; return what it printed if it failed."""
    command = ["chroot", machine.root, *command_of(machine)]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return f"the next run: exit {ended.returncode}: {ended.stderr}" if ended.returncode else ""


def state_of(machine: Machine) -> State:
    """Return everything in which the machine's tree differs from the image, settled."""
    changes = find_changes(machine.layers, {}, take_snapshot(machine.layers), ignored=())
    return {path: _settle(path, entry) for path, (_, entry) in changes.items()}


def _settle(path: str, entry: Entry) -> list[str]:
    return describe(path, None, entry, SAMPLE_VM.password)


def differences(found: State, expected: State, ignored: tuple[str, ...] = ()) -> list[str]:
    paths = sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
    return [path for path in paths if not matches(path, (*OF_THE_MOMENT, *ignored))]


def _half_written(killed: State, undisturbed: Undisturbed) -> list[str]:
    """Name each file that is neither as it was nor as it is to be; a directory may lack its owner or mode yet.

    What another VM was given is removed first, and may be lacking then.
    """
    withdrawn = {effect.target for effect in undisturbed.effects if effect.call in REMOVES}
    faults = []
    for path, found in killed.items():
        if found[0].startswith("directory") or matches(path, (*OF_THE_MOMENT, *TEMPORARY)):
            continue
        if found == ["removed"] and path in withdrawn:
            continue
        if found not in [undisturbed.state.get(path), *undisturbed.whole.get(path, [])]:
            faults.append(f"half written: {path} is {found}")
    return faults


def _report(machine: Machine) -> dict[str, Any] | None:
    """Return the report that is stored, if there is one; raises ValueError for half of one."""
    try:
        with open(f"{machine.root}/var/lib/minprov/report.json", encoding="utf-8") as stream:
            document: dict[str, Any] = json.load(stream)
    except FileNotFoundError:
        return None
    return document


def _check_accounts(machine: Machine) -> str:
    """Return what pwck(8) and grpck(8) have to say, but for what each boot makes anew in /run."""
    said = ""
    for tool in ("pwck", "grpck"):
        command = ["chroot", machine.root, tool, "--read-only"]
        ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        said += "".join(line for line in (ended.stdout + ended.stderr).splitlines(True) if "'/run/" not in line)
    return said


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
