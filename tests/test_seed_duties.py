"""docs/seed-duties.md is held to the code: what it names exists, and what exists is on it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from minprov.cli import COMMANDS
from minprov.config import OWNERS, SETTINGS, schema_of

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/seed-duties.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| duty |")
]
KEYS = set(SETTINGS).union(*(schema_of(duty).settings for duty in OWNERS.values()))


def read_tests(pattern: str) -> set[str]:
    return {
        node.name
        for file in ROOT.glob(pattern)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


GUESTS = read_tests("tests/vm/test_*.py")
TESTS = read_tests("tests/**/test_*.py") - GUESTS


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_says_where_the_duty_is_or_why_not(row: list[str]) -> None:
    _, _, here, held_by = row
    where = [name for name in names(here) if name in KEYS or name.startswith(("minprov/", "units/"))]
    for name in names(here):
        if name.startswith(("minprov/", "units/")):
            assert (ROOT / name).is_file(), name
        elif name.startswith("minprov "):
            assert name.split(" ")[1] in COMMANDS, name
    assert where or "refused: " in here or "not yet" in here or "minprov " in here or held_by
    if where and "not yet" not in here:
        assert held_by, "what is there has a test"
    for name in names(held_by):
        if name.startswith("case "):
            assert (ROOT / "tests/cases" / name.removeprefix("case ") / "case.toml").is_file(), name
        elif name.startswith("guest "):
            assert name.removeprefix("guest ") in GUESTS, name
        else:
            assert name in TESTS, name


@pytest.mark.parametrize("key", sorted(key for key in KEYS if key.endswith(".policy")))
def test_every_policy_is_on_the_page(key: str) -> None:
    assert any(key in names(row[2]) for row in ROWS)


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in ROOT.glob("minprov/duties/*/settings.py")))
def test_every_duty_is_on_the_page(folder: str) -> None:
    assert any(f"minprov/duties/{folder}/" in row[2] for row in ROWS)


@pytest.mark.parametrize(
    ("duty", "key"),
    [
        ("key pairs", "certificates.key-pairs"),
        ("pre-provisioned VMs", "preprovisioning"),
    ],
)
def test_not_yet_is_said_of_what_has_no_setting(duty: str, key: str) -> None:
    (here,) = (row[2] for row in ROWS if row[0] == duty)
    assert ("not yet" in here) == (key not in KEYS)
