"""Boots side by side: a guest under software emulation keeps one processor busy, and mostly the others are idle."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from tests.vm.announcing import Announcer
from tests.vm.story import Story

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEFT_OUT = pytest.StashKey[set[str]]()
TIMES = "vm/seconds"
"""Where pytest's cache has what each story took the last time."""


@pytest.fixture(scope="session")
def told(request: pytest.FixtureRequest) -> Iterator[dict[Story, Future[Any]]]:
    """Play the stories that the selected tests are about, one for each processor: each test waits for its own."""
    stories, processors = _stories(request.session.items), len(os.sched_getaffinity(0))
    cache = request.config.cache
    assert cache is not None
    last = cache.get(TIMES, {})
    with _uncaptured_stderr(request.config) as stream:
        announcer = Announcer(stream, last)
        request.config.pluginmanager.register(announcer)
        announcer.announce(stories, processors)
        with ThreadPoolExecutor(processors) as stage:
            yield {story: stage.submit(asyncio.run, announcer.play(story)) for story in stories}
    cache.set(TIMES, last | announcer.taken)


@contextmanager
def _uncaptured_stderr(config: pytest.Config) -> Iterator[TextIO]:
    """Yield the stderr that pytest itself has: what stories say is no output of the test that waits for them."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        descriptor = os.dup(2)
    with open(descriptor, "w") as stream:
        yield stream


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
