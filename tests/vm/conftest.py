"""Boots side by side: a guest under software emulation keeps one processor busy, and mostly the others are idle."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.vm.story import Story

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEFT_OUT = pytest.StashKey[set[str]]()


@pytest.fixture(scope="session")
def told(request: pytest.FixtureRequest) -> Iterator[dict[Story, Future[Any]]]:
    """Play the stories that the selected tests are about, one for each processor: each test waits for its own."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as stage:
        yield {story: stage.submit(asyncio.run, story.play()) for story in _stories(request.session.items)}


def pytest_deselected(items: Iterable[pytest.Item]) -> None:
    """Note the stories that are not played."""
    for item in items:
        for story in _stories([item]):
            item.config.stash.setdefault(LEFT_OUT, set()).add(story.name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say plainly what was not booted: a green line is about the rest."""
    if names := config.stash.get(LEFT_OUT, None):
        terminalreporter.write_line(f"Not booted, see make test-vm-all: {', '.join(sorted(names))}")


def _stories(items: Iterable[pytest.Item]) -> list[Story]:
    """Return the stories that tests are parametrized with, each once, in the order of the tests."""
    values = (
        value
        for item in items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        for value in item.callspec.params.values()
    )
    return list(dict.fromkeys(value for value in values if isinstance(value, Story)))
