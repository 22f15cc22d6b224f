"""What is waited for while a guest boots: one line, on a terminal only."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minprov.limits import PROGRESS_INTERVAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minprov.image.progress import StatusLine


@contextmanager
def shown_wait(line: StatusLine, what: str, limit: float, last_words: Callable[[], str]) -> Iterator[None]:
    """Show what is waited for in the block, for how long and at most, and what the guest said last."""
    start = time.monotonic()

    async def keep_showing() -> None:
        while True:
            line.show(f"{time.monotonic() - start:7.1f} s  {what}, {limit:.0f} s at most  | {last_words()}")
            await asyncio.sleep(PROGRESS_INTERVAL)

    task = asyncio.create_task(keep_showing())
    try:
        yield
    finally:
        task.cancel()
        line.clear()
