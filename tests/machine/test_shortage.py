"""What comes of too little, told apart from a defect; and of streams that cannot be written to."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import pytest

from minprov.__main__ import SHORTAGE
from minprov.errors import Reason
from minprov.machine.shortage import find_shortage

# What a process of its own finds with a limit on the memory that it has, all but taken.
NEAR_A_LIMIT = """
import resource
from minprov.machine.shortage import find_shortage, PAGE_SIZE
with open("/proc/self/statm") as stream:
    used = int(stream.read().split()[{column}]) * PAGE_SIZE
resource.setrlimit(resource.{name}, (used * 17 // 16, used * 17 // 16))
print(find_shortage(ValueError("a library's own word")))
"""
WIDENED = """
import resource
from minprov.machine.shortage import widen_limits
resource.setrlimit(resource.RLIMIT_NOFILE, (12, {hard}))
try:
    widen_limits()
except Exception as error:
    print(error)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("error", "shortage"),
    [
        (MemoryError(), "Cannot allocate memory"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "Resource temporarily unavailable"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (ExceptionGroup("", [ValueError("first"), ExceptionGroup("", [MemoryError()])]), "Cannot allocate memory"),
        (RuntimeError("another"), None),
        (OSError(errno.ENOENT, "No such file or directory"), None),
        (KeyError("defect"), None),
    ],
)
def test_a_shortage_is_told_from_a_defect(error: Exception, shortage: str | None) -> None:
    assert find_shortage(error) == shortage


def test_what_came_first_counts() -> None:
    try:
        try:
            raise MemoryError
        except MemoryError as first:
            raise ImportError("cannot import name 'Transport'") from first
    except ImportError as error:
        assert find_shortage(error) == "Cannot allocate memory"


@pytest.mark.parametrize(("name", "column"), [("RLIMIT_AS", 0), ("RLIMIT_DATA", 5)])
def test_a_limit_that_is_almost_reached_is_named(name: str, column: int) -> None:
    assert _run(NEAR_A_LIMIT.format(name=name, column=column)).startswith(f"{name} is ")


def test_a_limit_is_raised_as_far_as_may_be() -> None:
    hard = min(512, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert _run(WIDENED.format(hard=hard)).split() == [str(hard)] * 2


def test_too_few_open_files_are_refused() -> None:
    printed = _run(WIDENED.format(hard=16))
    assert printed.splitlines() == [
        "too little memory, processes or open files: detail=RLIMIT_NOFILE is 16, 32 are needed",
        "16 16",
    ]


def _run(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1"])
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--dry-run", "--emulated", "--json"], 0),
        (["--frobnicate"], 64),
        (["--frobnicate", "--json"], 64),
    ],
    ids=str,
)
def test_the_exit_status_does_not_depend_on_the_streams(arguments: list[str], status: int, redirection: str) -> None:
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "minprov", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


FULL = """
import sys

class Full:
    def find_spec(self, name, *_):
        if name in ("minprov.cli", "minprov.machine.shortage"):
            raise MemoryError

sys.meta_path.insert(0, Full())
sys.argv[1:] = ["--dry-run"]
from minprov.__main__ import main
main()
"""


def test_too_little_memory_to_find_out_that_there_is_too_little_is_no_defect() -> None:
    ended = subprocess.run([sys.executable, "-c", FULL], check=False, capture_output=True)
    assert (ended.returncode, ended.stderr) == (os.EX_OSERR, b"")
    assert Reason.NO_RESOURCES.phrase == SHORTAGE
