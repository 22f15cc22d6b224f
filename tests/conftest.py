"""What holds for every test."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The time-out of a test bounds it. A deadline on each example fails on a busy machine, and says nothing about the code.
settings.register_profile("minprov", deadline=None)
settings.load_profile("minprov")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs root where there is none."""
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))
