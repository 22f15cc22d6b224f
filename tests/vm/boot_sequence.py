"""A sequence: some boots in a row, and what came of them. Several tests judge one sequence."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import pytest


class BootSequence(NamedTuple):
    """What is run once, for all the tests that are parametrized with it."""

    name: str
    run: Callable[[], Coroutine[Any, Any, Any]]


def on_demand(sequence: BootSequence) -> Any:  # noqa: ANN401 (pytest's ParameterSet, which it does not export)
    """Leave a sequence to ``make test-vm-all``."""
    return pytest.param(sequence, marks=pytest.mark.long)
