"""What a long work is doing, in one line on a terminal; nothing where stderr is none."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from minprov.limits import PROGRESS_INTERVAL
from minprov.outcome.terminal import is_terminal

ESTIMATE_FROM = 5
"""The per cent from which the time of the rest is estimated."""
USUAL_COLUMNS = 80
"""Of a terminal that does not know its size, as a serial one."""


class StatusLine:
    """A line that is replaced by the next, and is to be taken away before anything else is printed."""

    def __init__(self) -> None:
        self._shown = False
        self._on = is_terminal(sys.stderr)

    def show(self, text: str) -> None:
        """Show a line, as much of it as the terminal is wide: what is wrapped could not be replaced."""
        if self._on:
            self._shown = True
            with suppress(OSError):  # a terminal that was closed meanwhile
                columns = os.get_terminal_size(sys.stderr.fileno()).columns or USUAL_COLUMNS
                _write(f"\r{text[: columns - 1]}\x1b[K")

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._shown = False
            with suppress(OSError):
                _write("\r\x1b[K")


def _write(text: str) -> None:
    """Write past Python's buffer: what stayed in it would fail again when the interpreter ends, with status 120."""
    os.write(sys.stderr.fileno(), text.encode(errors="replace"))


class Progress:
    """The progress of one work, as a share of 1, with the time that the rest takes if it goes on like this."""

    def __init__(self, work: str) -> None:
        self._work = work
        self._line = StatusLine()
        self._start = time.monotonic()
        self._next = self._start

    def show(self, share: float) -> None:
        """Show the share that is done, unless one was shown just now."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS_INTERVAL
            left = (now - self._start) * (1 - share) / share if share * 100 >= ESTIMATE_FROM else 0.0
            rest = f", about {left:.0f} s left" if left >= 1 else ""
            self._line.show(f"{self._work}: {share:4.0%}{rest}")

    def end(self) -> None:
        """Take the line away."""
        self._line.clear()
