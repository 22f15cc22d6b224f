"""The document of a result says all that docs/result.md promises, and the text says it too."""

import re
from pathlib import Path

from minprov.actions import Policy
from minprov.outcome.result import ActionResult, Outcome, Result, State, to_document
from minprov.outcome.text import render

DOCUMENTATION = Path(__file__).parents[2] / "docs/result.md"


def result_of(state: State, *, verified: bool | None) -> Result:
    result = Result(outcome=Outcome.PROVISIONED)
    result.actions = (ActionResult("grant-sudo", "/etc/sudoers.d/x", Policy.REQUIRED, state, "grants it", verified),)
    return result


def test_every_key_is_documented() -> None:
    document = to_document(result_of(State.CHANGED, verified=True))
    documented = set(re.findall(r"^\| `(\w+)` \|", DOCUMENTATION.read_text(encoding="utf-8"), re.MULTILINE))
    assert documented == {*document, *document["actions"][0]}


def test_what_was_written_and_not_verified_is_told() -> None:
    assert "written, not verified" in render(to_document(result_of(State.CHANGED, verified=None)))
    assert "not verified" not in render(to_document(result_of(State.CHANGED, verified=True)))


def test_a_report_of_an_earlier_version_is_shown() -> None:
    document = to_document(result_of(State.CHANGED, verified=None))
    del document["actions"][0]["verified"]
    assert "grant-sudo  changed" in render(document)
