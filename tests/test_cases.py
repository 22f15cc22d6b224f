"""Each folder of tests/cases is a scenario: see the README there. Adding one needs no Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from minprov.emulator.tables import read_table
from tests.harness.case import CASE_CONVERTERS, RUN_CONVERTERS
from tests.harness.golden import read_expected, shown, write_expected

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tests.harness.client import Harness

CASES = Path(__file__).parent / "cases"
TABLES: dict[str, dict[str, Any]] = {path.parent.name: read_table(path) for path in sorted(CASES.glob("*/case.toml"))}
# Those that others refer to come first, for --update-golden.
NAMES = sorted(TABLES, key=lambda name: ("like" in TABLES[name], name))


@pytest.fixture(scope="module")
def started(harness: Harness, request: pytest.FixtureRequest) -> dict[str, Future[dict[str, Any]]]:
    """Start all selected cases, a few at a time: each test finds its own done, or waits for it."""
    selected = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.originalname == "test_case"
        and not item.get_closest_marker("skip")
    ]
    return {name: harness.start(TABLES[name], CASES / name / "case.toml") for name in selected}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if TABLES[name].get("unprivileged") else pytest.mark.root) for name in NAMES]
)
def test_case(name: str, started: dict[str, Future[dict[str, Any]]], request: pytest.FixtureRequest) -> None:
    result = started[name].result()
    if reason := result.get("unavailable"):
        pytest.skip(reason)
    assert "broken" not in result, result["broken"]
    print("\n".join(result["log"]))
    assert not result["faults"]
    directory, like = CASES / name, TABLES[name].get("like")
    if request.config.getoption("--update-golden"):
        write_expected(directory, like, result["observed"])
    # As text, of which pytest shows the lines that differ.
    assert shown(result["observed"], sort=True) == shown(read_expected(directory, like), sort=True)


def test_static_program_misses_no_case_but_where_pam_or_libcrypt_is_asked() -> None:
    libraries = {name: TABLES[name]["libraries"] for name in NAMES if "libraries" in TABLES[name]}
    assert libraries.pop("password-yescrypt") == ["libcrypt"]
    assert all("pam" in name and names == ["libpam"] for name, names in libraries.items())


@pytest.mark.parametrize("key", [*CASE_CONVERTERS, *RUN_CONVERTERS, "faults", "again"])
def test_key_of_a_case_is_in_the_readme(key: str) -> None:
    assert f"`{key.replace('_', '-')}`" in (CASES / "README.md").read_text(encoding="utf-8")
