"""Boots side by side: a guest under software emulation keeps one processor busy, and mostly the others are idle."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from tests.vm.announcing import Announcer
from tests.vm.boot_sequence import BootSequence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEFT_OUT = pytest.StashKey[set[str]]()
TIMES = "vm/seconds"
"""Where pytest's cache has what each sequence took the last time."""


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Iterator[dict[BootSequence, Future[Any]]]:
    """Run the sequences that the selected tests are about, one for each processor: each test waits for its own."""
    sequences, processors = _sequences(request.session.items), len(os.sched_getaffinity(0))
    cache = request.config.cache
    assert cache is not None
    last = cache.get(TIMES, {})
    with _uncaptured_stderr(request.config) as stream:
        announcer = Announcer(stream, last)
        request.config.pluginmanager.register(announcer)
        announcer.announce(sequences, processors)
        with ThreadPoolExecutor(processors) as stage:
            yield {sequence: stage.submit(asyncio.run, announcer.run(sequence)) for sequence in sequences}
    cache.set(TIMES, last | announcer.taken)


@contextmanager
def _uncaptured_stderr(config: pytest.Config) -> Iterator[TextIO]:
    """Yield the stderr that pytest itself has: what sequences say is no output of the test that waits for them."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        descriptor = os.dup(2)
    with open(descriptor, "w") as stream:
        yield stream


def pytest_deselected(items: Iterable[pytest.Item]) -> None:
    """Note the sequences that are not run."""
    for item in items:
        for sequence in _sequences([item]):
            item.config.stash.setdefault(LEFT_OUT, set()).add(sequence.name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say plainly what was not booted: a green line is about the rest."""
    if names := config.stash.get(LEFT_OUT, None):
        terminalreporter.write_line(f"Not booted, see make test-vm-all: {', '.join(sorted(names))}")


def _sequences(items: Iterable[pytest.Item]) -> list[BootSequence]:
    """Return the sequences that tests are parametrized with, each once, in the order of the tests."""
    values = (
        value
        for item in items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        for value in item.callspec.params.values()
    )
    return list(dict.fromkeys(value for value in values if isinstance(value, BootSequence)))
