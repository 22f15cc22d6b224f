"""How long anything in a run may take: one deadline, limits within it, and a signal that ends it."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from minprov.errors import ProvisioningError, Reason
from minprov.limits import DEADLINE_SLACK, HEARTBEAT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from minprov.outcome.timeline import Timeline

logger = logging.getLogger(__name__)


class Bounds:
    """The deadline of a run, on the event loop's clock; create it in the loop."""

    def __init__(self, seconds: float, timeline: Timeline) -> None:
        self.seconds = seconds
        self.deadline = asyncio.get_running_loop().time() + seconds
        self._timeline = timeline
        self._terminated = False
        self._work: asyncio.Task[None] | None = None

    def extend(self, grace: float) -> None:
        """Leave at least `grace` seconds from now, or from the deadline where that has passed."""
        began = min(asyncio.get_running_loop().time(), self.deadline)
        self.deadline = max(self.deadline, began + grace)

    def terminate(self) -> None:
        """End what is being done, and whatever is begun later."""
        self._terminated = True
        if self._work:
            self._work.cancel()

    async def run(self, work: Coroutine[Any, Any, None], *, limit: float = math.inf) -> None:
        """Run what may take long until it ends, or is ended by the deadline, a limit in seconds, or `terminate`.

        Raises: TimeoutError, or ProvisioningError(TERMINATED), in an exception group as all that the work raises.
        """
        deadline = min(self.deadline, asyncio.get_running_loop().time() + limit)
        async with asyncio.timeout_at(deadline + DEADLINE_SLACK), asyncio.TaskGroup() as group:
            self._work = group.create_task(work)
            if self._terminated:
                self._work.cancel()
        if self._work.cancelled():
            raise ProvisioningError(Reason.TERMINATED, waited_for=self._timeline.waited_for)

    @asynccontextmanager
    async def heartbeat(self, say: Callable[[str], Awaitable[None]]) -> AsyncIterator[None]:
        """Say now and then what is being waited for."""
        async with asyncio.TaskGroup() as group:
            heartbeat = group.create_task(self._beat(say))
            yield
            heartbeat.cancel()

    async def _beat(self, say: Callable[[str], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            left = max(0.0, self.deadline - asyncio.get_running_loop().time())
            line = f"waiting for {self._timeline.waited_for}, {left:.0f} s left"
            await say(line)
            logger.info("%s", line)
