"""When another attempt is made, with the clock, sleep and jitter in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from minprov.errors import ProvisioningError, Reason
from minprov.network.retry import AttemptFailed, RetryPolicy, retry

POLICY = RetryPolicy()


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def failing(times: int, make: Callable[[], AttemptFailed]) -> Callable[[], asyncio.Future[str]]:
    left = times

    def operation() -> asyncio.Future[str]:
        nonlocal left
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        left -= 1
        if left < 0:
            future.set_result("done")
        else:
            future.set_exception(make())
        return future

    return operation


def failure(*, final: bool = False, delay: float | None = None) -> AttemptFailed:
    return AttemptFailed(ProvisioningError(Reason.IMDS_HTTP, http_code=500), final=final, delay=delay)


def run(operation: Callable[[], asyncio.Future[str]], clock: Clock, deadline: float = 1000.0) -> str:
    async def main() -> str:
        return await retry(operation, deadline=deadline, clock=clock, sleep=clock.sleep, jitter=lambda: 0.5)

    return asyncio.run(main())


def test_delays_start_at_a_tenth_of_a_second_and_grow_to_five() -> None:
    clock = Clock()
    assert run(failing(12, failure), clock) == "done"
    assert clock.slept[0] == pytest.approx(0.1)
    assert clock.slept == sorted(clock.slept)
    assert clock.slept[-1] == 5.0
    assert sum(delay <= 2 for delay in clock.slept) >= 7


def test_jitter_spreads_delays_by_a_quarter_either_way() -> None:
    assert (POLICY.delay(2, 0.0), POLICY.delay(2, 1.0)) == pytest.approx((0.12, 0.2))


def test_a_delay_that_was_asked_for_is_the_least_to_wait() -> None:
    clock = Clock()
    run(failing(1, lambda: failure(delay=7.0)), clock)
    assert clock.slept == [pytest.approx(7.0 * 1.125)]
    assert POLICY.delay(1, 0.0, 7.0) == 7.0


def test_to_ask_for_no_delay_makes_no_busy_loop() -> None:
    clock = Clock()
    with pytest.raises(ProvisioningError):
        run(failing(10_000, lambda: failure(delay=0.0)), clock, deadline=600.0)
    assert min(clock.slept) >= 0.1
    assert len(clock.slept) < 150


def test_an_endless_number_of_attempts_has_a_delay() -> None:
    assert POLICY.delay(100_000, 0.5) == 5.0


def test_a_delay_beyond_the_deadline_leaves_one_last_attempt() -> None:
    clock = Clock()
    assert run(failing(1, lambda: failure(delay=60.0)), clock, deadline=20.0) == "done"
    assert clock.slept == [19.0]
    with pytest.raises(ProvisioningError) as caught:
        run(failing(10, lambda: failure(delay=60.0)), clock, deadline=40.0)
    assert (clock.now, caught.value.data["attempts"]) == (39.0, "2")


def test_a_final_failure_is_not_repeated() -> None:
    clock = Clock()
    with pytest.raises(ProvisioningError) as caught:
        run(failing(1, lambda: failure(final=True)), clock)
    assert clock.slept == []
    assert caught.value.data == {"http_code": "500", "attempts": "1"}


def test_it_ends_before_the_deadline_with_the_last_error_and_the_number_of_attempts() -> None:
    clock = Clock()
    with pytest.raises(ProvisioningError) as caught:
        run(failing(1000, failure), clock, deadline=20.0)
    assert clock.now < 20.0
    assert int(caught.value.data["attempts"]) == len(clock.slept) + 1
    assert isinstance(caught.value.__cause__, AttemptFailed)


def test_an_attempt_that_the_deadline_cut_short_says_less_than_the_one_before_it() -> None:
    clock = Clock()

    def cut_short() -> AttemptFailed:
        answered = clock.now == 0.0
        clock.now = 0.1 if answered else 20.0
        return AttemptFailed(ProvisioningError(Reason.IMDS_HTTP if answered else Reason.IMDS_READ_TIMEOUT))

    with pytest.raises(ProvisioningError) as caught:
        run(failing(2, cut_short), clock, deadline=20.0)
    assert (caught.value.reason, caught.value.data["attempts"]) == (Reason.IMDS_HTTP, "2")


def test_other_exceptions_pass() -> None:
    with pytest.raises(KeyError):
        run(failing(1, lambda: KeyError("x")), Clock())  # type: ignore[arg-type, return-value]  # what must not be caught
