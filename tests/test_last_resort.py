"""The platform is told also where the run cannot: it hangs, is gone, or could not be loaded."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import time
from typing import TYPE_CHECKING

import pytest

from minprov.emulator.faults import Faults, Step
from minprov.emulator.platform import Emulator
from minprov.errors import Reason
from tests.stuck import stuck_files
from tests.whole_run import WholeRun, ended, on

if TYPE_CHECKING:
    from pathlib import Path

    from minprov.emulator.platform import Exchange

pytestmark = pytest.mark.root

STARTING = 5.0  # seconds in which a busy machine has started a Python
MAIN = "\nfrom minprov.__main__ import main\nmain()\n"
HANGS = """
import time
import minprov.commands.run, minprov.plan, minprov.provision
minprov.commands.run.KILL_GRACE = 3.0
minprov.provision.plan_provisioning = lambda *_: time.sleep(1000)
"""
# As if the module were not installed, or broken.
HELD_BACK = """
import signal
signal.signal(signal.SIGALRM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGCHLD})
"""
BROKEN = "import sys; sys.modules[{name!r}] = None\n"


@pytest.fixture
def whole(tmp_path: Path) -> WholeRun:
    return WholeRun(tmp_path)


async def told(platform: Emulator, seconds: float) -> str:
    """Return the description of the one report, once there is one."""
    async with asyncio.timeout(seconds):
        while not platform.health_reports:  # noqa: ASYNC110  # the platform tells nobody of its list
            await asyncio.sleep(0.02)
    [report] = platform.health_reports
    assert report.state == "NotReady"
    assert report.description
    return report.description


def test_a_run_that_hangs_is_spoken_for_soon_after_its_deadline(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        start = time.monotonic()
        process = await whole.start(platform, seconds=2, code=HANGS + MAIN)
        description = await told(platform, 10)
        assert time.monotonic() - start < 2 + 2 + STARTING
        assert "reason=provisioning deadline passed|" in description
        assert "told_by=last resort" in description
        assert (await ended(process)).status == -signal.SIGALRM
        [line] = whole.console_lines()
        assert line == f"minprov: {description}"
        assert whole.host_report() == description
        document = whole.report()
        assert (document["error"]["reason"], document["outcome"]) == ("provisioning deadline passed", "failed")
        status = await whole.status("--json")
        assert json.loads(status.stdout) == document

    on(Emulator(), test)


def test_a_state_directory_that_does_not_answer_holds_nobody_up(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        with stuck_files(whole.root / "var/lib/minprov"):
            start = time.monotonic()
            process = await whole.start(platform, seconds=1)
            assert "reason=provisioning deadline passed|" in await told(platform, 10)
            assert time.monotonic() - start < 1 + 2 + STARTING
        await ended(process)
        assert len(platform.health_reports) == 1

    (whole.root / "var/lib").mkdir(parents=True)
    on(Emulator(), test)


def test_without_a_goal_state_it_is_told_by_the_other_channel(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        process = await whole.start(platform, seconds=1.5, code=HANGS + MAIN)
        await told(platform, 10)
        assert platform.health_reports[0].channel == "json"
        process.kill()
        await ended(process)

    faults = Faults(steps={"goal-state": (Step(times=math.inf, status=500),)})
    on(Emulator(faults=faults), test)


def test_a_platform_that_is_busy_is_told_once_it_listens(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        process = await whole.start(platform, seconds=1.5, code=HANGS + MAIN)
        await told(platform, 10)
        process.kill()
        await ended(process)

    busy = (Step(times=3, status=503),)
    steps = {"goal-state": (Step(times=math.inf, status=503),), "provisioning-health": busy}
    on(Emulator(faults=Faults(steps=steps)), test)


def test_signals_that_were_held_back_or_ignored_are_set_as_they_are_needed(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, seconds=1.5, code=HELD_BACK + HANGS + MAIN))
        assert run.status == -signal.SIGALRM
        await told(platform, 10)

    on(Emulator(), test)


def test_a_run_that_is_killed_is_spoken_for_at_once(whole: WholeRun) -> None:
    asked = asyncio.Event()

    def look(exchange: Exchange) -> None:
        if exchange.endpoint == "instance":
            asked.set()

    async def test(platform: Emulator) -> None:
        process = await whole.start(platform)
        await asked.wait()
        process.kill()
        assert "told_by=last resort" in await told(platform, 5)
        await ended(process)

    stalled = Faults(steps={"instance": (Step(times=math.inf, drop="stall"),)})
    whole.media.unlink()
    on(Emulator(faults=stalled, on_request=look), test)


@pytest.mark.parametrize(
    "name",
    [
        "aiofiles",
        "aiofiles.os",
        "aiohttp",
        "asyncio",
        "defusedxml",
        "minprov.cli",
        "minprov.commands.run",
        "minprov.config",
        "minprov.errors",
        "minprov.network.transport",
        "minprov.provision",
    ],
)
def test_whatever_cannot_be_loaded_is_told(whole: WholeRun, name: str) -> None:
    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, code=BROKEN.format(name=name) + MAIN))
        assert run.status not in (0, 1), run.stderr
        reason = "unhandled exception" if name == "minprov.errors" else Reason.NOT_LOADED.phrase
        assert f"reason={reason}|" in await told(platform, 5)
        assert "Traceback" not in run.stderr

    on(Emulator(), test)


def test_a_run_that_cannot_be_loaded_is_told_of_once_there_is_a_network(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        # What another run is spoken for in has long passed by then.
        impatient = "import minprov.last_resort as module; module.DEFAULTS['post_limit'] = 0.1\n"
        await ended(await whole.start(platform, code=impatient + BROKEN.format(name="aiohttp") + MAIN))
        assert f"reason={Reason.NOT_LOADED.phrase}|" in await told(platform, 10)

    late = (Step(times=5, status=503),)
    on(Emulator(faults=Faults(steps={"goal-state": late, "provisioning-health": late})), test)


def test_who_has_begun_to_report_is_not_spoken_for(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, seconds=4))
        assert run.status == 69
        posted = [item.endpoint for item in platform.requests if item.request.method == "POST"]
        assert posted
        await asyncio.sleep(0)
        assert not [report for report in platform.health_reports if report.state == "NotReady"]

    on(
        Emulator(
            faults=Faults(
                steps={name: (Step(times=math.inf, drop="stall"),) for name in ("health", "provisioning-health")}
            )
        ),
        test,
    )


@pytest.mark.parametrize("flags", [("--dry-run",), ("--help",), ("--version",), ("--no-such-flag",)])
def test_who_tells_nobody_is_not_spoken_for(whole: WholeRun, flags: tuple[str, ...]) -> None:
    async def test(platform: Emulator) -> None:
        await ended(await whole.start(platform, *flags))
        assert platform.health_reports == []

    on(Emulator(), test)
