"""report.json has at most 64 KiB, whatever the platform, an image or a user makes long."""

from __future__ import annotations

import json
from typing import Any

from minprov.actions import Policy
from minprov.errors import ProvisioningError, Reason
from minprov.model import Chosen, Properties
from minprov.outcome.channels import MAX_REPORT, encode_report
from minprov.outcome.result import ActionResult, Result, Source, SourceState, State, to_document
from minprov.outcome.timeline import Span, Timeline
from minprov.plan import Plan

LONG = "\N{GRINNING FACE}" * 1_000  # twelve bytes each as JSON


def requested(timeline: Timeline, times: int) -> list[Span]:
    """Make every kind of request so often, and return the spans."""
    for name in ("IMDS GET", "WireServer GET", "WireServer POST"):
        for _ in range(times):
            timeline.add_request(name, timeline.now_ms(), "Connection reset by peer")
    return timeline.spans


def properties() -> Properties:
    texts = {
        name: Chosen((LONG,) * 1000 if name in ("ssh_public_keys", "groups") else LONG, "media")
        for name in Properties._fields
    }
    return Properties(**texts)  # type: ignore[arg-type]  # whatever a property is, it is shown as text


def worst_result() -> Result:
    """Return the result of a run in which everything is as long and as often as it can be."""
    result = Result(vm_id=LONG, spans=requested(Timeline(), 1000), error=ProvisioningError(Reason.TOOL_FAILED))
    result.error.data |= {f"key{number}": LONG for number in range(10)}  # type: ignore[union-attr]  # given above
    result.media = result.imds = result.goal_state = Source(SourceState.FAILED, LONG)
    result.plan = Plan(properties(), (), (LONG,) * 100, ())
    result.host_keys = (LONG,) * 100
    result.actions = (ActionResult(LONG, LONG, Policy.REQUIRED, State.FAILED, LONG),) * 50
    for number in range(1000):
        result.note(f"{number}{LONG}")
    return result


def test_a_report_in_which_everything_is_long_fits() -> None:
    result = worst_result()
    assert len(json.dumps(to_document(result))) > 4 * MAX_REPORT
    contents = encode_report(result)
    assert len(contents) <= MAX_REPORT
    stored: dict[str, Any] = json.loads(contents)
    assert stored.keys() == to_document(result).keys()
    assert stored["error"]["reason"] == Reason.TOOL_FAILED.phrase
    assert stored["notes"][0].endswith("…")


def test_requests_that_are_repeated_are_counted_and_need_nothing_to_be_cut() -> None:
    result = Result(spans=requested(Timeline(), 10_000))
    stored = json.loads(encode_report(result))
    assert stored == to_document(result)
    assert sum(span.get("requests", 1) for span in stored["timings"]) == 30_000


def test_a_report_of_common_size_is_whole() -> None:
    result = Result()
    result.note("x" * 1000)
    assert json.loads(encode_report(result)) == to_document(result)
