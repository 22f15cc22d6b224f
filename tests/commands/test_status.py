"""The stored result is whatever is in the file: it is shown, or refused with a reason, and never waited for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from minprov.actions import Policy
from minprov.cli import run
from minprov.outcome.result import ActionResult, Result, State, to_document

WHOLE = json.dumps(to_document(Result()))


def status(tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, str]:
    code = run(["status", "--root", str(tmp_path), *flags])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def report(tmp_path: Path) -> Path:
    directory = tmp_path / "var/lib/minprov"
    directory.mkdir(parents=True)
    return directory / "report.json"


@pytest.mark.parametrize(
    "contents",
    [
        "",
        "[]",
        "null",
        "{}",
        "{",
        "[" * 100_000,
        "9" * 5000,
        '{"schema": "minprov/result/1"}',
        '{"schema": "minprov/result/1", "outcome": []}',
        WHOLE.replace('"actions": []', '"actions": [1]'),
        WHOLE.replace('"sources": {', '"sources": {"x": null, '),
        WHOLE.replace('"health": {', '"health": null, "x": {'),
        WHOLE.replace('"vm_id": null', '"vm_id": "\\ud800"'),
    ],
)
def test_a_result_that_is_none_is_refused_with_a_reason(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], contents: str
) -> None:
    report.write_text(contents)
    code, out, err = status(tmp_path, capsys)
    if "ud800" in contents:  # only a word in it cannot be encoded
        assert (code, "\\ud800" in out) == (0, True)
    else:
        assert (code, out) == (os.EX_NOINPUT, "")
        assert err.startswith("minprov: no report: ")


def test_a_fifo_is_not_waited_for(report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(report)
    assert status(tmp_path, capsys)[0] == os.EX_NOINPUT


def test_what_is_there_is_printed(report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.write_text(WHOLE)
    assert json.loads(status(tmp_path, capsys, "--json")[1]) == json.loads(WHOLE)
    assert status(tmp_path, capsys)[1].startswith("minprov ")


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"state": "ended", "duration": 3.21, "error": None}, "exit status 0 after 3.2 s"),
        ({"state": "ended", "duration": 3.21, "error": {"reason": "TOOL_FAILED"}}, "failed after 3.2 s"),
        ({"state": "started"}, "runs in its unit"),
        ({"state": "ended", "duration": 3.21, "error": None, "vm_id": "another"}, "runs in its unit"),
    ],
)
def test_how_a_program_ended_after_ready_is_shown(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], record: dict[str, Any], shown: str
) -> None:
    action = ActionResult("execute-custom-data", "", Policy.BEST_EFFORT, State.CHANGED, "runs in its unit", None)
    result = Result(vm_id="this")
    result.actions = (action,)
    report.write_text(json.dumps(to_document(result)))
    written = {"schema": "minprov/custom-data/1", "vm_id": "this"} | record
    report.with_name("custom-data.json").write_text(json.dumps(written))
    code, out, _ = status(tmp_path, capsys, "--json")
    assert (code, json.loads(out)["actions"][0]["detail"]) == (0, shown)


def test_flags_of_a_run_are_none_of_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = status(tmp_path, capsys, "--force", "--dry-run")
    assert code == os.EX_USAGE
    assert "--force --dry-run" in err
