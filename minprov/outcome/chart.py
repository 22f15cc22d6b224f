"""The timings of a result, laid out on one time axis: a row for each thing, a bar for each time that it took."""

from __future__ import annotations

from typing import Any

from minprov.definitions import NamedTuple

MAX_ROWS = 60
WORK, WAIT, REFUSED = "work", "wait", "refused"
MARKS = {WORK: "=", WAIT: ".", REFUSED: "x"}


class Bar(NamedTuple):
    """One stretch of time, in milliseconds from the start; `label` says how it ended where that is not plain."""

    start: float
    end: float
    kind: str
    label: str | None = None


class Row(NamedTuple):
    """What has one name: all its bars, in the order in which they began."""

    name: str
    bars: list[Bar]


def lay_out(timings: list[dict[str, Any]]) -> list[Row]:
    """Return a row for each name, in the order in which they began; attempts at one request share a row.

    What is done is also waited for: such a wait has no row of its own.
    """
    done = {timing["name"] for timing in timings if timing.get("kind") != "wait"}
    rows: dict[str, Row] = {}
    for timing in sorted(timings, key=lambda timing: (timing["start_ms"], timing["end_ms"])):
        outcome = timing.get("outcome")
        if timing.get("kind") == "wait" and timing["name"] in done:
            continue
        kind = WAIT if timing.get("kind") == "wait" else WORK if outcome in (None, "accepted") else REFUSED
        name = f"wait: {timing['name']}" if kind == WAIT else timing["name"]
        rows.setdefault(name, Row(name, [])).bars.append(Bar(timing["start_ms"], timing["end_ms"], kind, outcome))
    return list(rows.values())[:MAX_ROWS]


def render_chart(timings: list[dict[str, Any]], *, width: int = 48) -> list[str]:
    """Return the rows as lines of text, `width` characters to the time from the start to the end."""
    rows = lay_out(timings)
    end = max((bar.end for row in rows for bar in row.bars), default=0)
    if not end:
        return []
    longest = max(len(row.name) for row in rows)
    return [f"  {row.name:<{longest}} |{_bars(row, end, width)}| {describe(row)}" for row in rows]


def describe(row: Row) -> str:
    """Return in words when it was and how it went."""
    refused = [bar for bar in row.bars if bar.kind == REFUSED]
    spent = sum(bar.end - bar.start for bar in row.bars)
    text = f"{spent:.0f} ms from {row.bars[0].start:.0f} ms"
    if refused:
        text += f", {len(row.bars)} attempts, {len(refused)} in vain: {refused[-1].label}"
    return text


def _bars(row: Row, end: float, width: int) -> str:
    line = [" "] * width
    # What failed is seen even where something else is drawn in the same place.
    for bar in sorted(row.bars, key=lambda bar: bar.kind == REFUSED):
        first = min(int(bar.start / end * width), width - 1)
        last = max(first + 1, min(round(bar.end / end * width), width))
        line[first:last] = MARKS[bar.kind] * (last - first)
    return "".join(line)
