"""How far a long work is, in one line on a terminal; nothing where stderr is none."""

from __future__ import annotations

import sys
import time

from minprov.limits import PROGRESS_INTERVAL


class Progress:
    """The progress of one work, as a share of 1."""

    def __init__(self, work: str) -> None:
        self._work = work
        self._next = 0.0
        self._shown = False
        self._on = sys.stderr.isatty()

    def show(self, share: float) -> None:
        """Show the share that is done, unless one was shown just now."""
        now = time.monotonic()
        if self._on and now >= self._next:
            self._next = now + PROGRESS_INTERVAL
            self._shown = True
            sys.stderr.write(f"\r{self._work}: {share:4.0%}")
            sys.stderr.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
