"""A network that comes late: nothing happens before there is a route, and Ready is told at once when there is one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from bench.late_network import measure_in_namespace

if TYPE_CHECKING:
    from bench.late_network import Late

PROGRAM = [sys.executable, "-m", "minprov"]
LIMIT = 100.0
"""Milliseconds; as many as one answer of a platform takes that is far away."""
ATTEMPTS = 5

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.path.exists("/usr/sbin/visudo"), reason="needs the account tools and sudo"),
]


def soonest(*, silent_imds: bool = False) -> Late:
    """Return the first run that is soon enough, or the last one: beside other tests one may be held up."""
    for _ in range(ATTEMPTS):
        run = measure_in_namespace(PROGRAM, silent_imds=silent_imds)
        if run.ms <= LIMIT and run.wake_ups == 0:
            break
    return run


def test_ready_follows_the_route_at_once_with_three_requests() -> None:
    run = soonest()
    assert run.wake_ups == 0
    assert sorted(run.requests) == ["goal-state", "health", "instance"]
    assert run.ms <= LIMIT


def test_imds_is_not_waited_for_when_nothing_of_it_is_needed() -> None:
    run = soonest(silent_imds=True)
    assert run.wake_ups == 0
    assert run.requests == ("goal-state", "health")
    assert run.ms <= LIMIT
