from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from minprov.errors import Reason

ROOT = Path(__file__).parent.parent
DOCUMENTS = runpy.run_path(str(ROOT / "scripts/generate_docs.py"))["DOCUMENTS"]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_document_made_from_code_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == DOCUMENTS[path](), "run `make docs`"


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_reason_tells_what_it_is_why_and_what_to_do(reason: Reason) -> None:
    assert reason.phrase == reason.phrase.strip()
    assert not set(reason.phrase) & set("|'\n"), "it goes into the encoded report as it is"
    assert reason.exit_status in {getattr(os, name) for name in dir(os) if name.startswith("EX_")} - {os.EX_OK}
    for sentence in (reason.cause, reason.action):
        assert sentence.endswith((".", "?"))
        assert "|" not in sentence, "it would split the row of the table"


def test_every_reason_has_its_own_phrase() -> None:
    # Two members that are equal would be one with two names.
    assert len({reason.phrase for reason in Reason}) == len(Reason.__members__)


def first_columns(text: str) -> list[str]:
    """Return how lines begin: the rest of an indented one depends on the machine, or on the moment."""
    return [re.split(r"(?<=\S)  +", line)[0] for line in text.splitlines() if line]


def test_the_readme_shows_what_its_first_command_prints() -> None:
    _, shown = (ROOT / "README.md").read_text(encoding="utf-8").split(" && make demo\n", 1)
    lines = first_columns(shown.partition("```")[0])
    command = [sys.executable, "-m", "minprov", "--dry-run", "--emulated"]
    printed = first_columns(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (lines[0], lines[-1]) == (printed[0], printed[-1])
    places = [printed.index(line) for line in lines if line.strip() != "…"]
    assert places == sorted(places)
    for line, following in pairwise(lines):
        if "…" not in (line.strip(), following.strip()):
            assert printed.index(following) == printed.index(line) + 1
