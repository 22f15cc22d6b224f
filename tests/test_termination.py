"""SIGTERM at any await: the run ends at once, and says so. tests/crash sends it at each effect, with real tools."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from minprov.emulator.platform import Emulator
from tests.whole_run import Ended, WholeRun, ended

POINTS = 12
AT_A_TIME = 2
LIMIT = 2.0  # or three times as long as a whole run, on a machine that has no time
# Whatever is awaited, the loop turns once more when it is there: before each turn the program is at an await.
TURNS = """
import asyncio, os, signal, sys, time
turn, run_once = 0, asyncio.BaseEventLoop._run_once

def count(loop):
    global turn
    turn += 1
    if turn == {number}:
        os.kill(os.getpid(), signal.SIGTERM)
    print(f"turn {{turn}} at {{time.monotonic()}}", file=sys.stderr)
    run_once(loop)

asyncio.BaseEventLoop._run_once = count
from minprov.__main__ import main
main()
"""


class Terminated(NamedTuple):
    """A run that got SIGTERM at a turn of its event loop, and how many seconds after that (or its start) it ended."""

    whole: WholeRun
    run: Ended
    seconds: float


async def run_to(turn: int, directory: Path) -> Terminated:
    async with Emulator() as platform:
        whole = WholeRun(directory)
        start = time.monotonic()
        process = await whole.start(platform, "--loop", "asyncio", code=TURNS.format(number=turn))
        run = await ended(process)
        now = time.monotonic()
    turns = dict(re.findall(r"^turn (\d+) at ([\d.]+)$", run.stderr, re.MULTILINE))
    return Terminated(whole, run, now - float(turns.get(str(turn), start)))


@pytest.mark.root
def test_sigterm_at_any_await_ends_the_run_at_once_with_its_report_written(tmp_path: Path) -> None:
    async def test() -> None:
        undisturbed = await run_to(0, tmp_path / "undisturbed")
        assert undisturbed.run.status == 0
        turns = len(re.findall("^turn ", undisturbed.run.stderr, re.MULTILINE))
        places = asyncio.Semaphore(AT_A_TIME)

        async def terminate_at(turn: int) -> str:
            async with places:
                whole, run, seconds = await run_to(turn, tmp_path / str(turn))
            report = whole.report()
            assert seconds < max(LIMIT, 3 * undisturbed.seconds), turn
            if run.status == 0:  # the platform had taken Ready: there was nothing left to stop
                assert (report["outcome"], report["health"]["reported"]) == ("provisioned", "Ready")
                return "provisioned"
            assert run.status == 75, run.stderr
            assert report["error"]["reason"] == "terminated by a signal"
            assert whole.host_report().startswith("result=error|reason=terminated by a signal|")
            assert "reason=terminated by a signal" in whole.console_lines()[-1]
            return "terminated"

        numbers = [1 + index * (turns - 1) // POINTS for index in range(POINTS)]
        outcomes = await asyncio.gather(*map(terminate_at, numbers))
        assert "terminated" in outcomes

    asyncio.run(test())
