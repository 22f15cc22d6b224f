"""Which guests boot and how long they take, said while the tests wait for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.vm.boot_sequence import BootSequence


class Announcer:
    """Plays sequences and says on a stream, in whole lines, when each begins and ends.

    It is a plugin of pytest's as well, to know when pytest has left a line of its own open.
    """

    def __init__(self, stream: TextIO, last: Mapping[str, float]) -> None:
        self._stream = stream
        self._last = last
        self._line_is_open = True
        self.taken: dict[str, float] = {}
        """Seconds of each sequence that came to its end."""

    def announce(self, sequences: Iterable[BootSequence], at_a_time: int) -> None:
        """Say what is going to be played, and about how long that takes."""
        names = [sequence.name for sequence in sequences]
        known = sum(self._last.get(name, 0) for name in names) / at_a_time
        unknown = sum(name not in self._last for name in names)
        time_needed = f", about {known:.0f} s" if known else ""
        besides = f" and what {unknown} take that were not booted before" if known and unknown else ""
        self._say(f"{len(names)} to boot, {at_a_time} at a time{time_needed}{besides}")

    async def run(self, sequence: BootSequence) -> Any:  # noqa: ANN401 (what a sequence comes to is its own)
        """Run a sequence and return what came of it."""
        last = self._last.get(sequence.name)
        self._say(f"{sequence.name} boots{'' if last is None else f'; {last:.0f} s the last time'}")
        start = time.monotonic()
        try:
            found = await sequence.run()
        except BaseException:
            self._say(f"{sequence.name} failed after {time.monotonic() - start:.0f} s")
            raise
        self.taken[sequence.name] = time.monotonic() - start
        self._say(f"{sequence.name} took {self.taken[sequence.name]:.0f} s")
        return found

    def _say(self, line: str) -> None:
        end, self._line_is_open = "\n" if self._line_is_open else "", False
        self._stream.write(f"{end}  {line}\n")  # one write: sequences are played in threads
        self._stream.flush()

    def pytest_runtest_logstart(self) -> None:
        """Note that pytest writes the name of a test's file."""
        self._line_is_open = True

    def pytest_runtest_logreport(self) -> None:
        """Note that pytest writes a test's letter."""
        self._line_is_open = True
