"""What holds for every test."""

from __future__ import annotations

import faulthandler
import os
import shlex
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.harness.client import Harness
from tests.whole_run import WholeRun

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# The time-out of a test bounds it. A deadline on each example fails on a busy machine, and says nothing about the code.
# The same examples each time; `--hypothesis-profile=default` looks for others.
settings.register_profile("minprov", deadline=None, derandomize=True)
settings.load_profile("minprov")

ERRORS = pytest.StashKey[int]()
MACHINES = 3
"""Machines at a time: a case computes for half of its time, and waits for the rest."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what cases come to into their expect.json")
    parser.addoption(
        "--program",
        default=shlex.join([sys.executable, "-m", "minprov"]),
        help="what the cases run: an installed minprov",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the same of every host's settings; note where errors are seen, before output is captured."""
    os.umask(0o022)
    config.stash[ERRORS] = os.dup(2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs root where there is none, or where root cannot have mounts of its own."""
    lacking = "needs root" if os.geteuid() != 0 else "needs a / that is a mount point, which a chroot's is not"
    if os.geteuid() != 0 or not _root_is_mounted():
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason=lacking))


def _root_is_mounted() -> bool:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        return any(line.split(" ")[4] == "/" for line in mounts)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End everything, after twice the limit of a test, where the limit itself did not end it.

    The limit is an exception in the main thread. A thread that blocks outlives it, and the loop waits for its threads.
    """
    marker = item.get_closest_marker("timeout")
    limit = float(marker.args[0] if marker else item.config.getini("timeout"))
    if not item.config.getoption("usepdb") and item.config.getoption("timeout") != 0:
        faulthandler.dump_traceback_later(2 * limit, exit=True, file=item.config.stash[ERRORS])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    """Skip what needs a program that a user cannot install; as root `make test` has installed it."""
    yield from _skip_without_program()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Skip what needs a program that a user cannot install; as root `make test` has installed it."""
    yield from _skip_without_program()


def _skip_without_program() -> Generator[None, None, None]:
    try:
        yield
    except FileNotFoundError as error:
        program = missing_program(error)
        if program is None or os.geteuid() == 0:
            raise
        pytest.skip(f"needs {program}")


def missing_program(error: FileNotFoundError) -> str | None:
    """Return the program that could not be started, if that is what the error is about."""
    frames = list(traceback.walk_tb(error.__traceback__))
    started = bool(frames) and frames[-1][0].f_code.co_filename == subprocess.__file__
    return os.path.basename(os.fsdecode(error.filename)) if started and error.filename else None


@pytest.fixture(scope="session")
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Machines to run the program on."""
    with Harness(MACHINES, shlex.split(request.config.getoption("--program"))) as running:
        yield running


@pytest.fixture
def whole(tmp_path: Path) -> WholeRun:
    return WholeRun(tmp_path)


@pytest.fixture
def _children_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this test see no processes but those that it starts: the machine has others, and perhaps another clone's."""
    listdir = os.listdir

    def is_child(process: str) -> bool:
        with suppress(OSError):
            return f"\nPPid:\t{os.getpid()}\n" in Path("/proc", process, "status").read_text(encoding="utf-8")
        return False

    monkeypatch.setattr(
        os, "listdir", lambda path: [name for name in listdir(path) if not name.isdecimal() or is_child(name)]
    )
