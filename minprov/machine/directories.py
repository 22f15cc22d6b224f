"""Directories opened one step at a time, so that no other user can lead the way elsewhere.

Images have links in the place of directories: ``/home`` to ``var/home``, ``/etc/ssh`` to a partition that stays. Root
made them, in directories that root alone can write to, and they are followed. A link that another user can have made
leads where that user wants it to, and is refused. In a tree, absolute links and ``..`` stay inside the tree.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINKS = 40  # as the kernel's own limit, MAXSYMLINKS


@contextmanager
def opened_directory(root: str, path: str, *, make: int | None = None) -> Iterator[int]:
    """Open the directory at `path` of the system at `root`, as O_PATH; make those that are lacking, with a mode.

    A link whose target is not there has its target made.

    Raises:
        OSError: FileNotFoundError, NotADirectoryError; ELOOP for a loop of links, or one of another user's.

    """
    descriptor = _walk(root, path, make)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _walk(root: str, path: str, make: int | None) -> int:
    waiting = path.split("/")[::-1]
    taken: list[str] = []  # the steps from `root` to `here`, no link among them
    links = 0
    here: int | None = None  # `root` itself, which is opened only when something has to be done in it
    try:
        while waiting:
            name = waiting.pop()
            if name in ("", "."):
                continue
            if name == "..":
                waiting += taken[-2::-1]
                taken.clear()
                here = _go_on_at(None, here)
                continue
            try:
                here = _go_on_at(_open(os.path.join(root, name) if here is None else name, here), here)
                taken.append(name)
            except (NotADirectoryError, FileNotFoundError) as error:
                if here is None:
                    here = _open(root)
                if isinstance(error, FileNotFoundError):
                    if make is None:
                        raise
                    _make(here, name, make)
                    waiting.append(name)
                    continue
                target = _target_of_roots_link(here, name, path)
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                waiting += target.split("/")[::-1]
                if target.startswith("/"):
                    taken.clear()
                    here = _go_on_at(None, here)
        return _open(root) if here is None else here
    except BaseException:
        _go_on_at(None, here)
        raise


def _open(name: str, directory: int | None = None) -> int:
    return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def _go_on_at(there: int | None, here: int | None) -> int | None:
    if here is not None:
        os.close(here)
    return there


def _target_of_roots_link(directory: int, name: str, path: str) -> str:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    try:
        target = os.readlink(name, dir_fd=directory)
    except OSError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
    if found.st_uid not in _trusted() or not is_held_by_root(directory):
        raise OSError(errno.ELOOP, f"{name} is a link that another user may have made", path)
    return target


def is_held_by_root(directory: int) -> bool:
    """Tell whether nobody but root can put something else in the place of what root made in an open directory."""
    found = os.fstat(directory)
    return found.st_uid in _trusted() and (not found.st_mode & 0o022 or bool(found.st_mode & stat.S_ISVTX))


def _trusted() -> set[int]:
    return {0, os.geteuid()}  # an unprivileged run on a tree of one's own trusts oneself as well


def _make(directory: int, name: str, mode: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=directory)
    except FileExistsError:
        return  # a step that runs at the same time was quicker
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
