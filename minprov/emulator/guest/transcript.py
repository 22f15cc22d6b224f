"""What a running thing has said so far, and waiting for what it says next.

Every wait for a guest is one of these: it ends with the text it waits for, or fails at its deadline showing the end of
what was said instead.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class UnheardError(Exception):
    """What was waited for was not said; the message shows the end of what was."""


class Transcript:
    """Text in the order it arrived, by whole lines with the time of each, and a place up to which it was matched.

    `on_line` is called with every whole line and the time of it, by the monotonic clock.
    """

    def __init__(self, name: str, *, on_line: Callable[[float, str], None] | None = None) -> None:
        self.name = name
        self._on_line = on_line
        self.text = ""
        self.arrivals: list[tuple[float, str]] = []
        self._seen = 0
        self._partial = ""
        self._closed = asyncio.Event()
        self._changed = asyncio.Event()

    def feed(self, data: bytes) -> None:
        """Add what just arrived."""
        piece = data.decode(errors="replace")
        now = time.monotonic()
        self.text += piece
        *lines, self._partial = (self._partial + piece).split("\n")
        for line in lines:
            self.arrivals.append((now, line.rstrip("\r")))
            if self._on_line:
                self._on_line(*self.arrivals[-1])
        self._changed.set()

    def close(self) -> None:
        """Say that nothing more will come: whoever still waits fails at once."""
        self._closed.set()
        self._changed.set()

    async def closed(self) -> None:
        """Wait for the end of the text."""
        await self._closed.wait()

    async def follow(self, reader: asyncio.StreamReader) -> None:
        """Feed from a stream until it ends."""
        with suppress(ConnectionError):  # how a killed process ends a stream
            while data := await reader.read(65536):
                self.feed(data)
        self.close()

    async def expect(self, pattern: str, *, within: float) -> re.Match[str]:
        """Wait for the next match after the last one, and return it.

        Raises: UnheardError at the end of the time or of the text.
        """
        _, match = await self.expect_after(pattern, within=within)
        return match

    async def expect_after(self, pattern: str, *, within: float) -> tuple[str, re.Match[str]]:
        """Wait for the next match after the last one; return it and what came between the two.

        Raises: UnheardError at the end of the time or of the text.
        """
        expression = re.compile(pattern, re.MULTILINE)
        try:
            async with asyncio.timeout(within):
                while not (match := expression.search(self.text, self._seen)):
                    if self._closed.is_set():
                        raise self._failure(f"ended without {pattern!r}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise self._failure(f"did not say {pattern!r} in {within:.0f} s") from None
        between, self._seen = self.text[self._seen : match.start()], match.end()
        return between, match

    def _failure(self, what: str) -> UnheardError:
        tail = "\n".join(self.text.splitlines()[-40:])
        return UnheardError(f"{self.name} {what}; it said:\n{tail}")
