"""Cut the power of `minprov resource-disk` at its effects: ``python -m tests.crash.resource_disk``.

The temporary disk is a loop device, and the state directory is on a small disk of its own. At a point both image files
are copied: they have what had reached the disks. Then everything is killed, and the next run finds the copies, as after
a boot. It must bring about what an undisturbed run does. A cut in the middle of a sync leaves some of the blocks that
the sync writes, chosen at random, and the others as they were.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.duties.loop import loop_device
from tests.duties.test_decisions import fill
from tests.duties.test_whole_runs import DISKS, PROGRAM, write_config
from tests.harness.linux import MS_PRIVATE, MS_REC, mount
from tests.harness.tracer import Blow, Stop, trace

from .campaign import spread
from .command_line import read_command_line
from .effects import CALLS, Effect, Effects
from .machines import FILE_SYSTEMS, FileSystem, alone, copy_disk, make_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of this campaign alone: the kernel has one list of swap files, by their paths.
PLACE = f"/mnt/minprov-cut-{os.getpid()}"
STATE, MOUNT_POINT = f"{PLACE}/state", f"{PLACE}/resource"
THE_DISK, THE_PARTITION = "the disk", "the partition"
SYNCS = ("fsync", "fdatasync")
# After these more has reached a disk, or may have.
DURABLE = (*SYNCS, "rename", "unlink", "unlinkat", "mount", "move_mount", "swapon", "swapoff")
KEPT = "kept"
BLOCK, CHUNK = 4096, 1 << 20
CHECKS = {
    "ext4": ("e2fsck", "-f", "-n"),
    "xfs": ("xfs_repair", "-n"),
    "btrfs": ("btrfs", "check", "--readonly"),
}


class Kind(NamedTuple):
    """Cuts of one kind: the file system that is made, and that of the state directory.

    `used` is a disk that minprov has made at an earlier boot; somebody has put a file on it and taken the swap away.
    With `killed` the power stays: everything is killed, and what it has written is there at the next boot.
    """

    name: str
    file_system: str
    system: FileSystem
    used: bool = False
    killed: bool = False


EXT4, _, BTRFS = FILE_SYSTEMS
KINDS = (
    Kind("ext4", "ext4", EXT4),
    Kind("xfs", "xfs", EXT4),
    Kind("btrfs", "btrfs", BTRFS),
    Kind("ext4-used", "ext4", BTRFS, used=True),
    *(Kind(f"{name}-killed", name, EXT4, killed=True) for name in DISKS),
)


class Cut(NamedTuple):
    """A moment: before the n-th occurrence of an effect, or with `torn` while it syncs the disk."""

    effect: Effect
    occurrence: int
    torn: bool

    def __str__(self) -> str:
        return f"{'in the middle of' if self.torn else 'before'} {self.effect} #{self.occurrence}"


class Disks(NamedTuple):
    """Image files: the temporary disk, and the one that the state directory is on."""

    temporary: Path
    system: Path

    def copy(self, directory: Path) -> Disks:
        """Copy what has reached the disks."""
        directory.mkdir()
        copies = Disks(directory / "temporary", directory / "system")
        for image, copy in zip(self, copies, strict=True):
            copy_disk(str(image), str(copy))
        return copies


@contextmanager
def _powered_on(kind: Kind, disks: Disks) -> Iterator[tuple[str, Path]]:
    """Attach the disks in this process' mount namespace; yield the temporary one's device, and the configuration."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    mount("none", "/mnt", "tmpfs")
    os.makedirs(STATE)
    with loop_device(disks.temporary) as device:
        options = f"loop,{kind.system.options}"
        _call("mount", "-t", kind.system.kind, "-o", options, str(disks.system), STATE)
        settings = {"file_system": kind.file_system, "mount-point": MOUNT_POINT}
        try:
            yield device, write_config(Path(PLACE), device, **settings)
        finally:
            _power_off()


def _power_off() -> None:
    with open("/proc/swaps", encoding="utf-8") as stream:
        if f"{MOUNT_POINT}/swapfile" in stream.read():
            _call("swapoff", f"{MOUNT_POINT}/swapfile")
    for place in (MOUNT_POINT, STATE):
        if os.path.ismount(place):
            _call("umount", place)


def _run(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *_arguments(config)], capture_output=True, text=True, check=False)


def _arguments(config: Path) -> list[str]:
    return ["resource-disk", "--json", "--config", str(config)]


def _call(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def prepare(kind: Kind, directory: Path) -> Disks:
    """Make the disks as a run finds them."""
    disks = Disks(fill(directory, DISKS[kind.file_system]), directory / "system")
    make_disk(kind.system, str(disks.system))
    if kind.used:
        alone(partial(_use, kind, disks))
    return disks


def _use(kind: Kind, disks: Disks) -> None:
    with _powered_on(kind, disks) as (_, config):
        _run(config).check_returncode()
        Path(MOUNT_POINT, KEPT).write_text(KEPT)
        _call("swapoff", f"{MOUNT_POINT}/swapfile")
        os.unlink(f"{MOUNT_POINT}/swapfile")


def observe(kind: Kind, disks: Disks) -> list[Effect]:
    """Return what an undisturbed run does to the disks, in order."""
    effects: list[Effect] = []

    def at_stop(_: Stop, effect: Effect) -> None:
        effects.append(effect)

    with _powered_on(kind, disks) as (device, config):
        _run_traced(device, config, at_stop)
        if faults := _look(kind, device, config):
            raise AssertionError("\n".join(faults))
    return effects


def cuts(kind: Kind, effects: list[Effect]) -> list[Cut]:
    """Return the moments to try: of a power cut, those that make a difference to what has reached the disks."""
    seen: Counter[Effect] = Counter()
    found = []
    for effect in effects:
        seen[effect] += 1
        if kind.killed or effect.call in DURABLE:
            found.append(Cut(effect, seen[effect], torn=False))
        if not kind.killed and effect.call in SYNCS and effect.target in (THE_DISK, THE_PARTITION):
            found.append(Cut(effect, seen[effect], torn=True))
    return found


def cut_power(kind: Kind, disks: Disks, cut: Cut, directory: Path) -> Disks | None:
    """Run until the moment, and return what is left on the disks; None if the run does not come by there."""
    occurrences = 0
    before: Disks | None = None
    left: Disks | None = None

    def at_stop(stop: Stop, effect: Effect) -> Blow | None:
        nonlocal occurrences, before, left
        if effect != cut.effect or left:
            return None
        occurrences += not stop.done
        if occurrences != cut.occurrence:
            return None
        if kind.killed:
            left = disks
        elif not stop.done:
            before = disks.copy(directory / "before")
            if cut.torn:
                return None
            left = before
        elif before:
            left = disks.copy(directory / "after")._replace(system=before.system)
            _take_back(before.temporary, left.temporary, random.Random(str(cut)))
        return Blow(-1, signal.SIGKILL)

    with _powered_on(kind, disks) as (device, config):
        _run_traced(device, config, at_stop, done=cut.torn)
    return left


def _take_back(before: Path, after: Path, chance: random.Random) -> None:
    """Make some of the blocks in which two images differ as they were."""
    with before.open("rb") as old, after.open("r+b") as new:
        for start in range(0, after.stat().st_size, CHUNK):
            was, is_now = os.pread(old.fileno(), CHUNK, start), os.pread(new.fileno(), CHUNK, start)
            for offset in range(0, len(was), BLOCK) if was != is_now else ():
                block = was[offset : offset + BLOCK]
                if block != is_now[offset : offset + BLOCK] and chance.random() < 0.5:
                    os.pwrite(new.fileno(), block, start + offset)


def _run_traced(device: str, config: Path, at_stop: Any, *, done: bool = False) -> None:  # noqa: ANN401
    effects = Effects("", {device: THE_DISK, f"{device}p1": THE_PARTITION})

    def to_the_disks(stop: Stop) -> Blow | None:
        effect = effects.find(stop)
        if effect is None or (stop.done and not done) or not effect.target.startswith((PLACE, "the ")):
            return None
        blow: Blow | None = at_stop(stop, effect)
        return blow

    def start() -> None:
        command = [*PROGRAM, *_arguments(config)]
        silent = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(silent, descriptor)
        os.execv(command[0], command)

    trace(start, {number: call.flags for number, call in CALLS.items()}, to_the_disks)


def run_again(kind: Kind, disks: Disks) -> list[str]:
    """Run on what a cut has left, and return what is wrong then."""
    with _powered_on(kind, disks) as (device, config):
        ended = _run(config)
        if ended.returncode:
            return [f"the next run: exit {ended.returncode}: {ended.stderr}"]
        return _look(kind, device, config)


def _look(kind: Kind, device: str, config: Path) -> list[str]:
    """Return what is wrong after a run that ended well."""
    faults = []
    document = json.loads(_run(config).stdout)
    faults += [f"{step['action']} is {step['state']}" for step in document["actions"] if step["state"] != "unchanged"]
    expected = {".minprov", "DATALOSS_WARNING_README.txt", "swapfile"} | ({KEPT} if kind.used else set())
    found = set(os.listdir(MOUNT_POINT)) - {"lost+found"}
    if found != expected:
        faults.append(f"on the disk are {', '.join(sorted(found))}")
    elif kind.used and Path(MOUNT_POINT, KEPT).read_text() != KEPT:
        faults.append("the file has other contents")
    if set(os.listdir(STATE)) - {"lost+found"} != {"resource-disk.json", "resource-disk.lock"}:
        faults.append(f"left in the state directory: {', '.join(os.listdir(STATE))}")
    node = next(path for path in (f"{device}p1", device) if os.path.exists(path))
    _power_off()
    checked = subprocess.run([*CHECKS[kind.file_system], node], capture_output=True, text=True, check=False)
    if checked.returncode:
        faults.append(f"the file system is damaged: {checked.stdout}{checked.stderr}")
    return faults


def try_cut(kind: Kind, disks: Disks, cut: Cut) -> list[str]:
    """Cut a run, run again, and return what is wrong."""
    with tempfile.TemporaryDirectory(dir=disks.temporary.parent) as name:
        directory = Path(name)
        left = alone(partial(cut_power, kind, disks.copy(directory / "own"), cut, directory))
        return alone(partial(run_again, kind, left)) if left else ["the run did not come by there"]


def main() -> int:
    """Try the moments of each kind, print the figures, and return whether anything was wrong."""
    points, names = read_command_line("tests.crash.resource_disk", [kind.name for kind in KINDS])
    line = "{:<16}{:>8}{:>8}{:>12}{:>10}"
    print(line.format("kind", "points", "tried", "mismatches", "seconds"))
    wrong = 0
    for kind in KINDS:
        if kind.name in names:
            wrong += _try_kind(kind, points, line)
    return 1 if wrong else 0


def _try_kind(kind: Kind, number: int | None, line: str) -> int:
    begun, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="minprov-cut-") as name:
        directory = Path(name)
        disks = prepare(kind, directory)
        points = cuts(kind, alone(partial(observe, kind, disks.copy(directory / "observed"))))
        tried = spread(points, number)
        for cut in tried:
            if faults := try_cut(kind, disks, cut):
                wrong += 1
                print(f"{kind.name}: {cut}", *faults, sep="\n  ", flush=True)
    print(line.format(kind.name, len(points), len(tried), wrong, f"{time.monotonic() - begun:.0f}"), flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
