"""One platform request may fail and be worth another: when, and how soon.

Pure but for the clock, sleep and jitter, which are arguments. Knows no HTTP library; `transport` makes the attempts.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.limits import LAST_ATTEMPT, LONGEST_DELAY, SHORTEST_DELAY

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Endpoint(NamedTuple):
    """A platform endpoint: what its failures are called and which statuses are worth another attempt."""

    name: str
    connection_failed: Reason
    connect_timed_out: Reason
    read_timed_out: Reason
    refused: Reason
    final_statuses: frozenset[int]
    longest_wait: float
    """Seconds that count of a longer delay that the server asks for."""


class RetryPolicy(NamedTuple):
    """Delays between attempts in seconds: soon at first, since the link may be coming up, then ever less often."""

    first: float = SHORTEST_DELAY
    growth: float = 1.6
    longest: float = LONGEST_DELAY

    def delay(self, attempt: int, jitter: float, asked: float | None = None) -> float:
        """Return the delay after the given attempt, the first being 1; `jitter` is within 0 and 1.

        A delay that the server asked for is the least to wait (RFC 9110 §10.2.3), so 0 does not make a busy loop of it.
        """
        grown = self.longest if attempt > GROWS_FOR else min(self.longest, self.first * self.growth ** (attempt - 1))
        own = max(SHORTEST_DELAY, grown * (0.75 + jitter / 2))
        return own if asked is None else max(own, asked * (1 + jitter / 4))


RETRY = RetryPolicy()
GROWS_FOR = 100
"""Attempts after which the delay has long been the longest: the power of a larger number is no float."""


class AttemptFailed(Exception):  # noqa: N818  # an event of the retry loop, not an error of the program
    """One attempt did not succeed: why, and what the endpoint said of another one."""

    def __init__(
        self,
        error: ProvisioningError,
        *,
        status: int | None = None,
        final: bool = False,
        delay: float | None = None,
        no_route: bool = False,
        prohibited: bool = False,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.status = status
        self.final = final
        self.delay = delay
        self.no_route = no_route
        self.prohibited = prohibited


def _random() -> float:
    import random  # a healthy platform is asked once

    return random.random()  # noqa: S311  # nobody gains from knowing it


async def retry(
    operation: Callable[[], Awaitable[T]],
    *,
    deadline: float,
    policy: RetryPolicy = RETRY,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    jitter: Callable[[], float] = _random,
) -> T:
    """Repeat an operation until it succeeds, fails finally, or the deadline (on `clock`, in seconds) leaves no time.

    A delay that goes beyond the deadline is cut, once, so that there is a last attempt before it.

    Raises the last attempt's `ProvisioningError`, with the number of attempts in its data; where the deadline cut that
    one short, the error of the one before it, which says more.
    """
    attempt = 0
    answered: AttemptFailed | None = None
    last = False
    while True:
        attempt += 1
        try:
            return await operation()
        except AttemptFailed as failure:
            delay, left = policy.delay(attempt, jitter(), failure.delay), deadline - clock()
            if delay >= left > SHORTEST_DELAY and not last:
                last, delay = True, max(SHORTEST_DELAY, left - LAST_ATTEMPT)
            if failure.final or delay >= left:
                told = answered if answered and clock() >= deadline else failure
                told.error.data["attempts"] = str(attempt)
                raise told.error from told
            if attempt & (attempt - 1) == 0:
                # Powers of two: the log tells how it goes on without being filled by it.
                logger.info("%s, attempt=%d, next in %.1f s", failure.error, attempt, delay)
            answered = failure
        await sleep(delay)
