"""What account tools that were killed leave behind goes, at once or with the next run; what others have stays."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from minprov.errors import ProvisioningError
from minprov.machine.account_locks import clear_up_after_tools, run_account_tool, what_tools_left
from minprov.machine.journal import Journal
from minprov.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator

VM = "7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14"
# As shadow-utils: a lock that the kernel gives back, and a file NAME.PID with its number, commonio.c.
TOOL = """
import fcntl, os, sys, time
etc = sys.argv[1]
lock = os.open(f"{etc}/.pwd.lock", os.O_WRONLY | os.O_CREAT, 0o600)
fcntl.lockf(lock, fcntl.LOCK_EX)
with open(f"{etc}/shadow.{os.getpid()}", "w") as file:
    file.write(str(os.getpid()))
print("at work", flush=True)
time.sleep(float(sys.argv[2]))
sys.exit(1)
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    etc = tmp_path / "etc"
    etc.mkdir()
    for name in ("passwd", "shadow", "group", "gshadow"):
        (etc / name).touch()
    (etc / "shadow.1").write_text("1")
    (etc / "passwd.20240131").write_text("a copy")
    (tmp_path / "state").mkdir()
    return etc


def system_of(etc: Path) -> System:
    system = System(str(etc.parent))
    system.journal = Journal(str(etc.parent / "state"))
    system.journal.open(VM)
    return system


@contextmanager
def tool_at_work(etc: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", TOOL, str(etc), "60"], stdout=subprocess.PIPE) as tool:
        try:
            assert tool.stdout
            assert tool.stdout.readline() == b"at work\n"
            yield
        finally:
            tool.kill()


def names(etc: Path) -> set[str]:
    return {path.name for path in etc.glob("[a-z]*.*")}


def test_a_tool_that_fails_leaves_nothing(etc: Path) -> None:
    with pytest.raises(ProvisioningError):
        asyncio.run(run_account_tool(system_of(etc), [sys.executable, "-c", TOOL, str(etc), "0"]))
    assert names(etc) == {"shadow.1", "passwd.20240131"}


def test_what_a_tool_leaves_that_outlives_its_run_is_the_next_runs(etc: Path) -> None:
    first = system_of(etc)
    asyncio.run(run_account_tool(first, ["/bin/true"]))
    with tool_at_work(etc):
        left = what_tools_left(first)
        first.journal.close(lambda effect: None, keep=left)
        assert len(names(etc)) == 3
    second = system_of(etc)
    assert second.journal.left_over == left
    assert clear_up_after_tools(second)
    assert names(etc) == {"shadow.1", "passwd.20240131"}
    second.journal.close(lambda effect: None, keep=what_tools_left(second))
    assert not (etc.parent / "state/journal").exists()


def test_nothing_is_kept_of_tools_that_have_ended(etc: Path) -> None:
    system = system_of(etc)
    asyncio.run(run_account_tool(system, ["/bin/true"]))
    assert what_tools_left(system) == ()


def test_without_a_tool_there_is_nothing_to_clear_up(etc: Path) -> None:
    with tool_at_work(etc):
        assert what_tools_left(system_of(etc)) == ()
