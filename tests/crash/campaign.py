"""Kill points found by tracing, each tried on a machine of its own, and the figures: ``python -m tests.crash``."""

from __future__ import annotations

import compileall
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

import minprov
from tests.harness.driver import PROGRAMS
from tests.harness.linux import CLONE_NEWNS, detach, unshare
from tests.harness.machine import WIRESERVER, Image

from .command_line import read_command_line
from .effects import Effect
from .machines import FILE_SYSTEMS, FileSystem, each_alone
from .trial import VM_ID, Kill, Scenario, Verdict, observe, prepare, try_kill, try_power_cut

T = TypeVar("T")

MOST_FAULTS, LONGEST_FAULT = 4, 500  # that are shown of one trial

REPLACED = ("useradd", "usermod", "userdel", "chpasswd", "adduser", "addgroup", "deluser")
SHADOW_UTILS = Scenario("shadow-utils")
# As on Alpine Linux, which has no gshadow either.
BUSYBOX = Scenario(
    "busybox",
    f"rm -f /etc/gshadow; cd /usr/sbin; rm -f {' '.join(REPLACED)}; cp {PROGRAMS}/busybox-accounts /bin/busybox",
)
ADOPTED = Scenario("adopted", "useradd --create-home --shell /bin/sh --password '*' azureuser")
AGED = Scenario("aged", "useradd --create-home --shell /bin/bash --password '*' --expiredate 2020-01-01 azureuser")
GENERALISED = Scenario("generalised", "rm /etc/ssh/ssh_host_*")
KEYS_ANEW = Scenario(
    "keys-anew",
    """
    mkdir -p /etc/minprov
    echo 'host-keys.policy = "anew"' >/etc/minprov/minprov.toml
    """,
)
NOT_POSTED = Scenario(
    "not-posted",
    f"""
    $MINPROV &
    while kill -0 $! && ! test -e /var/lib/minprov/applied/{VM_ID}; do sleep 0.05; done
    kill $! && ! wait $!
    """,
)
# An image that was captured from a VM that was made as another, with the same user.
CAPTURED = Scenario(
    "captured",
    f"""
    {NOT_POSTED.prepare}
    cd /var/lib/minprov
    mv applied/{VM_ID} applied/5d2c3a17-0b68-4a52-93a4-6f1c0d9be7f3
    sed -i s/{VM_ID}/5d2c3a17-0b68-4a52-93a4-6f1c0d9be7f3/ manifest.json
    mkdir ready
    cp applied/* ready
    printf another >custom-data
    echo another >/etc/hostname
    echo 'azureuser:$6$another$hash' | chpasswd -e
    echo '# another' >/home/azureuser/.ssh/authorized_keys
    rm /etc/ssh/ssh_host_* /etc/sudoers.d/*
    """,
)


class Kind(NamedTuple):
    """Trials of one kind: which points of a scenario, and with a file system, what is lost in a power cut."""

    name: str
    scenario: Scenario
    choose: Callable[[list[Kill]], list[Kill]]
    file_system: FileSystem | None = None


def everywhere(kills: list[Kill]) -> list[Kill]:
    """Choose all points."""
    return kills


def of_program(program: str) -> Callable[[list[Kill]], list[Kill]]:
    """Choose effects of one program."""
    return lambda kills: [kill for kill in kills if kill.effect.program == program]


def sparing_tools(kills: list[Kill]) -> list[Kill]:
    """Choose moments in the tools to kill only the program that started them, so that they end by themselves."""
    return [kill._replace(alone=True) for kill in kills if not kill.effect.program.startswith("minprov")][::3]


def terminating(kills: list[Kill]) -> list[Kill]:
    """Choose moments in the program to ask it to end."""
    return [kill._replace(signal=signal.SIGTERM, alone=True) for kill in of_program("minprov")(kills)]


def when_durable(kills: list[Kill]) -> list[Kill]:
    """Choose the moments after which more has reached the disk, or may have, and those at which the world is told."""
    durable = ("fsync", "fdatasync", "rename", "renameat")
    told = ("the platform", f"{WIRESERVER}:80")
    return [kill for kill in kills if kill.effect.call in durable or kill.effect.target in told]


KINDS = (
    Kind("shadow-utils", SHADOW_UTILS, everywhere),
    Kind("busybox", BUSYBOX, of_program("busybox")),
    Kind("adopted", ADOPTED, of_program("usermod")),
    Kind("aged", AGED, of_program("chage")),
    Kind("generalised", GENERALISED, of_program("ssh-keygen")),
    Kind("keys-anew", KEYS_ANEW, of_program("minprov")),
    Kind("captured", CAPTURED, of_program("minprov")),
    Kind("not-posted", NOT_POSTED, everywhere),
    Kind("minprov-alone", SHADOW_UTILS, sparing_tools),
    Kind("sigterm", SHADOW_UTILS, terminating),
    *(Kind(f"power-cut-{disk.kind}", SHADOW_UTILS, when_durable, disk) for disk in FILE_SYSTEMS),
)


class Outcome(NamedTuple):
    """What came of one trial."""

    kind: Kind
    kill: Kill
    verdict: Verdict

    @property
    def mismatch(self) -> bool:
        """Whether a promise was broken, or the point not met."""
        return bool(self.verdict.faults) or not self.verdict.met

    def __str__(self) -> str:
        faults = self.verdict.faults or ["the run did not come by there"]
        shown = [fault[:LONGEST_FAULT] for fault in faults[:MOST_FAULTS]]
        return "\n  ".join([f"{self.kind.name}: {self.kill}", *shown])


class Campaign:
    """The scenarios as they are found, what the program does on each, and the trials of its points."""

    def __init__(self, image: Image, kinds: Sequence[Kind]) -> None:
        scenarios = list(dict.fromkeys(kind.scenario for kind in kinds))
        layers = dict(each_alone(partial(prepare, image, scenario) for scenario in scenarios))
        self._images = {scenario: image.upon(layers[index]) for index, scenario in enumerate(scenarios)}
        seen = dict(each_alone(partial(observe, self._images[scenario]) for scenario in scenarios))
        self._undisturbed = {scenario: seen[index] for index, scenario in enumerate(scenarios)}

    def points(self, kind: Kind) -> list[Kill]:
        """Return all points of a kind."""
        return kind.choose(kills_of(self._undisturbed[kind.scenario].effects))

    def unsynced(self, kind: Kind) -> list[str]:
        """Return what a power cut could take back of what is on record as applied."""
        return self._undisturbed[kind.scenario].unsynced

    def run(self, trials: Sequence[tuple[Kind, Kill]]) -> Iterator[Outcome]:
        """Try the points and yield what came of each, as it ends."""
        for index, verdict in each_alone(self._work(kind, kill) for kind, kill in trials):
            yield Outcome(*trials[index], verdict)

    def _work(self, kind: Kind, kill: Kill) -> Callable[[], Verdict]:
        arguments = self._images[kind.scenario], self._undisturbed[kind.scenario], kill
        if kind.file_system:
            return partial(try_power_cut, *arguments, file_system=kind.file_system)
        return partial(try_kill, *arguments)


@contextmanager
def campaign(kinds: Sequence[Kind]) -> Iterator[Campaign]:
    """Make all that the trials of the kinds have in common; this process gets a mount namespace of its own."""
    compileall.compile_dir(os.path.dirname(minprov.__file__), quiet=2)
    unshare(CLONE_NEWNS)
    with tempfile.TemporaryDirectory(prefix="minprov-crash-") as directory, ExitStack() as stack:
        image = Image(directory, [sys.executable, "-m", "minprov"], privileged=True)
        stack.callback(detach, directory)
        yield Campaign(image, kinds)


def spread(points: Sequence[T], number: int | None) -> list[T]:
    """Return so many of the points, evenly spread."""
    if number is None or number >= len(points):
        return list(points)
    return [points[(2 * index + 1) * len(points) // (2 * number)] for index in range(number)]


def main() -> int:
    """Run the campaign, print its figures, and return whether anything was wrong."""
    number, names = read_command_line("tests.crash", [kind.name for kind in KINDS])
    kinds = [kind for kind in KINDS if kind.name in names]
    line = "{:<16}{:>8}{:>8}{:>8}{:>14}{:>12}{:>10}"
    print(line.format("kind", "points", "tried", "runs", "Ready twice", "mismatches", "seconds"))
    tried = mismatches = 0
    start = time.monotonic()
    with campaign(kinds) as prepared:
        for kind in kinds:
            begun = time.monotonic()
            points = prepared.points(kind)
            outcomes = []
            for outcome in prepared.run([(kind, kill) for kill in spread(points, number)]):
                outcomes.append(outcome)
                if outcome.mismatch:
                    print(outcome, flush=True)
            wrong = sum(outcome.mismatch for outcome in outcomes)
            if unsynced := prepared.unsynced(kind):
                wrong += 1
                print(f"{kind.name}: applied by its record, and not synced: {', '.join(unsynced)}")
            twice = sum(outcome.verdict.ready == 2 for outcome in outcomes)
            seconds = f"{time.monotonic() - begun:.0f}"
            print(
                line.format(kind.name, len(points), len(outcomes), 2 * len(outcomes), twice, wrong, seconds), flush=True
            )
            tried += len(outcomes)
            mismatches += wrong
    print(f"{tried} points, {2 * tried} runs, {mismatches} mismatches, {time.monotonic() - start:.0f} s")
    return 1 if mismatches else 0


def kills_of(effects: Sequence[Effect]) -> list[Kill]:
    """Return a kill before each effect, and after those that the same program's next does not follow at once.

    After an effect is before the next one of the same program, unless another program does something in between.
    """
    seen: Counter[Effect] = Counter()
    kills = []
    for effect, following in zip(effects, [*effects[1:], None], strict=True):
        seen[effect] += 1
        kills.append(Kill(effect, seen[effect], after=False))
        if following is None or following.program != effect.program:
            kills.append(Kill(effect, seen[effect], after=True))
    return kills
