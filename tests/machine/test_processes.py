"""A process is believed to be a program of the system's only for what nobody else can give it."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from minprov.machine.files import is_roots_alone
from minprov.machine.processes import Process, find_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
pytestmark = [pytest.mark.root, pytest.mark.usefixtures("_children_alone")]


@contextmanager
def running(program: Path, *arguments: str, name: str | None = None, uid: int = 0) -> Iterator[None]:
    """Run a program, under another name if one is given, once the kernel shows it."""
    argv = [name or str(program), *arguments]
    with subprocess.Popen(argv, executable=program, user=uid, group=uid, extra_groups=[]) as process:
        try:
            while os.readlink(f"/proc/{process.pid}/exe") != str(program):
                pass  # exec has begun, and ends in a moment
            yield
        finally:
            process.kill()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    return Path(shutil.copy("/bin/sleep", tmp_path / "dhclient"))


def test_a_program_of_roots_that_root_runs_is_found(program: Path) -> None:
    with running(program, "60"):
        assert list(find_processes({"dhclient": 0})) == [Process("dhclient", [str(program), "60"])]


def test_one_that_another_user_runs_is_not(program: Path) -> None:
    with running(program, "60", uid=NOBODY):
        assert list(find_processes({"dhclient": 0})) == []
        assert [process.name for process in find_processes({"dhclient": NOBODY})] == ["dhclient"]


@pytest.mark.parametrize(("owner", "mode"), [(NOBODY, 0o755), (0, 0o775), (0, 0o757)])
def test_one_that_others_can_write_is_not(program: Path, owner: int, mode: int) -> None:
    os.chown(program, owner, owner)
    program.chmod(mode)
    with running(program, "60"):
        assert list(find_processes({"dhclient": 0})) == []


def test_a_name_that_a_process_gives_itself_is_not_looked_at() -> None:
    with running(Path(os.path.realpath("/bin/sleep")), "60", name="/sbin/dhclient"):
        assert list(find_processes({"dhclient": 0})) == []


def test_a_file_is_roots_alone_where_no_other_can_put_it_in_its_place(tmp_path: Path) -> None:
    tree = Path("/run") / f"minprov-test-{os.getpid()}"
    tree.mkdir(mode=0o755)
    try:
        file, link = tree / "file", tmp_path / "link"
        file.touch(mode=0o600)
        link.symlink_to(file)
        assert is_roots_alone(str(file))
        assert is_roots_alone(str(link))
        assert not is_roots_alone("file")
        assert not is_roots_alone(str(tree))
        assert not is_roots_alone(str(tree / "absent"))
        tree.chmod(0o1777)
        assert not is_roots_alone(str(file))
        tree.chmod(0o755)
        os.chown(file, NOBODY, NOBODY)
        assert not is_roots_alone(str(file))
    finally:
        shutil.rmtree(tree)
