"""What holds for every test."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.harness.client import Harness
from tests.whole_run import WholeRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The time-out of a test bounds it. A deadline on each example fails on a busy machine, and says nothing about the code.
settings.register_profile("minprov", deadline=None)
settings.load_profile("minprov")

MACHINES = 3
"""Machines at a time: a case computes for half of its time, and waits for the rest."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what cases come to into their expect.json")
    parser.addoption(
        "--program", default=f"{sys.executable} -m minprov", help="what the cases run: an installed minprov"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs root where there is none."""
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Machines to run the program on."""
    with Harness(MACHINES, shlex.split(request.config.getoption("--program"))) as running:
        yield running


@pytest.fixture
def whole(tmp_path: Path) -> WholeRun:
    return WholeRun(tmp_path)
