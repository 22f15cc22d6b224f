"""Timings as bars on one axis, in text."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from minprov.outcome.chart import lay_out, render_chart


def timing(name: str, start: float, end: float, kind: str = "work", outcome: str | None = None) -> dict[str, Any]:
    found = {"name": name, "kind": kind, "start_ms": start, "end_ms": end}
    return found if outcome is None else found | {"outcome": outcome}


def test_attempts_share_a_row_and_those_in_vain_are_marked() -> None:
    timings = [
        timing("load", 0, 50),
        timing("IMDS GET", 50, 60, "request", "500"),
        timing("IMDS GET", 80, 100, "request", "accepted"),
        timing("IMDS", 50, 100, "wait"),
        timing("load", 0, 50, "wait"),  # what is done is waited for as well
    ]
    assert render_chart(timings, width=10) == [
        "  load       |=====     | 50 ms from 0 ms",
        "  IMDS GET   |     x  ==| 30 ms from 50 ms, 2 attempts, 1 in vain: 500",
        "  wait: IMDS |     .....| 50 ms from 50 ms",
    ]


def test_timings_of_a_version_that_did_not_tell_the_kind_are_drawn() -> None:
    old = [{"name": "media", "start_ms": 1.0, "end_ms": 2.0}]
    assert [row.name for row in lay_out(old)] == ["media"]
    assert render_chart([]) == []
    assert render_chart([timing("nothing", 0, 0)]) == []


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)), min_size=1, max_size=200), st.integers(1, 200))
def test_any_times_fit_the_width(times: list[tuple[float, float]], width: int) -> None:
    timings = [timing(f"step {index % 90}", min(pair), max(pair)) for index, pair in enumerate(times)]
    lines = render_chart(timings, width=width)
    assert all(len(line.split("|")[1]) == width for line in lines)
    assert len(lines) <= 60
