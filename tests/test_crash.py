"""Killed at any moment, or cut off from power: the next run makes it good. A sample of what `make crash` tries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .crash.effects import SUPPORTED, Effect, find_unsynced

KINDS = ("shadow-utils", "not-posted", "power-cut-btrfs")


@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.skipif(not SUPPORTED, reason="the tracer knows the system calls of x86-64 alone")
def test_what_a_kill_or_a_power_cut_leaves_is_made_good_by_the_next_run() -> None:
    _try("tests.crash", "--points", "3", *KINDS)


@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.skipif(not SUPPORTED, reason="the tracer knows the system calls of x86-64 alone")
def test_what_a_power_cut_leaves_of_the_temporary_disk_is_made_good_by_the_next_boot() -> None:
    _try("tests.crash.resource_disk", "--points", "3", "ext4", "ext4-used")


@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.skipif(not SUPPORTED, reason="the tracer knows the system calls of x86-64 alone")
def test_what_is_left_of_a_deprovisioning_that_is_cut_off_lets_somebody_in_and_is_finished_by_the_next() -> None:
    _try("tests.crash.deprovision", "--points", "3", "killed", "power-cut-btrfs")


def _try(program: str, *options: str) -> None:
    command = [sys.executable, "-m", program, *options]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert run.returncode == 0, run.stdout + run.stderr


def test_what_is_changed_after_it_was_synced_is_unsynced() -> None:
    calls = [
        *[("mkdir", "/a"), ("openat", "/a/.f"), ("write", "/a/.f"), ("fsync", "/a/.f"), ("rename", "/a/f")],
        *[("fsync", "/a"), ("openat", "/a/.g"), ("write", "/a/.g"), ("rename", "/a/g")],
    ]
    effects = [Effect("minprov", call, path) for call, path in calls]
    assert find_unsynced(effects[:6]) == {"/"}
    assert find_unsynced(effects) == {"/", "/a", "/a/.g"}
