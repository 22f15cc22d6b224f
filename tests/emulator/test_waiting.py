"""While a guest boots, its user sees on a terminal what is waited for, how long, and what the guest said last."""

from __future__ import annotations

import re
import sys

from tests.harness.terminal import run_on_terminal

WAIT = """
import asyncio
from minprov.emulator.guest.waiting import shown_wait
from minprov.image.progress import StatusLine

async def wait():
    with shown_wait(StatusLine(), "until a report", 600, lambda: "Reached target Network"):
        await asyncio.sleep(2.5)

asyncio.run(wait())
"""


def test_what_is_waited_for_is_shown_and_taken_away() -> None:
    _, shown = run_on_terminal([sys.executable, "-c", WAIT], {"TERM": "xterm"})
    assert "\r    0.0 s  until a report, 600 s at most  | Reached target Network\x1b[K" in shown
    assert re.search(r"\r    [12]\.", shown)
    assert shown.endswith("\r\x1b[K")


def test_a_log_has_nothing_of_it() -> None:
    assert run_on_terminal([sys.executable, "-c", WAIT], {"TERM": "dumb"}) == (0, "")
