"""A story: some boots in a row, and what came of them. Several tests judge one story."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import pytest


class Story(NamedTuple):
    """What is played once, for all the tests that are parametrized with it."""

    name: str
    play: Callable[[], Coroutine[Any, Any, Any]]


def on_demand(story: Story) -> Any:  # noqa: ANN401 (pytest's ParameterSet, which it does not export)
    """Leave a story to ``make test-vm-all``."""
    return pytest.param(story, marks=pytest.mark.long)
