"""What a running thing has said so far, and waiting for what it says next.

Every wait in the VM tests is one of these: it ends with the text it waits for, or fails at its deadline showing the end
of what was said instead. There are no sleeps.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress


class Transcript:
    """Text in the order it arrived, by whole lines with the time of each, and a place up to which it was matched."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.arrivals: list[tuple[float, str]] = []
        self._seen = 0
        self._partial = ""
        self._closed = False
        self._changed = asyncio.Event()

    def feed(self, data: bytes) -> None:
        """Add what just arrived."""
        piece = data.decode(errors="replace")
        now = time.monotonic()
        *lines, self._partial = (self._partial + piece).split("\n")
        self.arrivals += [(now, line.rstrip("\r")) for line in lines]
        self.text += piece
        self._changed.set()

    def close(self) -> None:
        """Say that nothing more will come: whoever still waits fails at once."""
        self._closed = True
        self._changed.set()

    async def follow(self, reader: asyncio.StreamReader) -> None:
        """Feed from a stream until it ends."""
        with suppress(ConnectionError):  # how a killed process ends a stream
            while data := await reader.read(65536):
                self.feed(data)
        self.close()

    async def expect(self, pattern: str, *, within: float) -> re.Match[str]:
        """Wait for the next match after the last one, and return it."""
        _, match = await self.expect_after(pattern, within=within)
        return match

    async def expect_after(self, pattern: str, *, within: float) -> tuple[str, re.Match[str]]:
        """Wait for the next match after the last one; return it and what came between the two."""
        expression = re.compile(pattern, re.MULTILINE)
        try:
            async with asyncio.timeout(within):
                while not (match := expression.search(self.text, self._seen)):
                    if self._closed:
                        raise self._failure(f"ended without {pattern!r}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise self._failure(f"did not say {pattern!r} in {within:.0f} s") from None
        between, self._seen = self.text[self._seen : match.start()], match.end()
        return between, match

    def _failure(self, what: str) -> AssertionError:
        tail = "\n".join(self.text.splitlines()[-40:])
        return AssertionError(f"{self.name} {what}; it said:\n{tail}")
