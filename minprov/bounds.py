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

        Raises: TimeoutError, or ProvisioningError(TERMINATED), or what the work raises.
        """
        left = min(self.deadline - asyncio.get_running_loop().time(), limit) + DEADLINE_SLACK
        self._work = asyncio.create_task(work)
        if self._terminated:
            self._work.cancel()
        # In no TaskGroup: where something fails in one, Python 3.11 and 3.12 leave a request to cancel with the task
        # around it, and in 3.11.2, Debian 12's, no time limit that passes later in that task is told from the request.
        try:
            await asyncio.wait([self._work], timeout=left)
            in_time = self._work.done()
        finally:
            self._work.cancel()
            await asyncio.wait([self._work])
        if self._work.cancelled():
            if in_time:
                raise ProvisioningError(Reason.TERMINATED, waited_for=self._timeline.waited_for)
            raise TimeoutError
        self._work.result()

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
