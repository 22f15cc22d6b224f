"""A directory is opened where root made it, and nowhere else."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from minprov.machine.directories import opened_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


@pytest.fixture
def tree() -> Iterator[Path]:
    """Return a directory that others cannot write to, nor those above it."""
    directory = Path(f"/run/minprov-test-{os.getpid()}")
    directory.mkdir(mode=0o755)
    yield directory
    shutil.rmtree(directory)


def where(tree: Path, path: str, *, make: int | None = None) -> str:
    with opened_directory(str(tree), path, make=make) as directory:
        return os.readlink(f"/proc/self/fd/{directory}").removeprefix(str(tree))


def errno_of(tree: Path, path: str, *, make: int | None = None) -> int | None:
    with pytest.raises(OSError) as error, opened_directory(str(tree), path, make=make):
        pass
    return error.value.errno


@pytest.mark.root
def test_links_of_roots_are_followed_and_stay_in_the_tree(tree: Path) -> None:
    (tree / "var/home/alice").mkdir(parents=True)
    (tree / "home").symlink_to("/var/home")
    (tree / "up").symlink_to("../../../var/home/../home/alice/.")
    assert where(tree, "/home/alice") == "/var/home/alice"
    assert where(tree, "up/../../../..") == ""
    assert where(tree, "/../../up") == "/var/home/alice"


@pytest.mark.root
def test_what_is_lacking_is_made_behind_a_dangling_link_too(tree: Path) -> None:
    (tree / "home").symlink_to("var/home")
    assert errno_of(tree, "/home") == errno.ENOENT
    assert where(tree, "/home/a/b", make=0o750) == "/var/home/a/b"
    assert (tree / "var/home/a").stat().st_mode & 0o777 == 0o750 & ~_umask()


@pytest.mark.root
@pytest.mark.parametrize(
    ("link_owner", "directory_owner", "mode", "followed"),
    [
        (0, 0, 0o755, True),
        (0, 0, 0o1777, True),
        (NOBODY, 0, 0o755, False),
        (NOBODY, 0, 0o1777, False),
        (0, NOBODY, 0o755, False),
        (0, 0, 0o775, False),
        (0, 0, 0o757, False),
    ],
)
def test_a_link_that_another_user_may_have_made_is_refused(
    tree: Path, link_owner: int, directory_owner: int, mode: int, followed: bool
) -> None:
    (tree / "etc").mkdir()
    users = tree / "users"
    users.mkdir()
    (users / "link").symlink_to("/etc")
    os.chown(users / "link", link_owner, link_owner, follow_symlinks=False)
    os.chown(users, directory_owner, directory_owner)
    users.chmod(mode)
    if followed:
        assert where(tree, "/users/link") == "/etc"
    else:
        assert errno_of(tree, "/users/link", make=0o755) == errno.ELOOP


@pytest.mark.root
def test_a_loop_ends_and_a_file_is_no_directory(tree: Path) -> None:
    (tree / "a").symlink_to("b")
    (tree / "b").symlink_to("a")
    (tree / "file").touch()
    os.mkfifo(tree / "fifo")
    assert errno_of(tree, "a", make=0o755) == errno.ELOOP
    assert errno_of(tree, "file/x", make=0o755) == errno.ENOTDIR
    assert errno_of(tree, "fifo") == errno.ENOTDIR
    assert len(os.listdir("/proc/self/fd")) < 100


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
