"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# The time-out of a test bounds it. A deadline on each example fails on a busy machine, and says nothing about the code.
settings.register_profile("minprov", deadline=None)
settings.load_profile("minprov")
