"""Directories below a home directory, where the user may put anything: opened step by step, and no link is followed."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.machine.files import sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.formats.accounts import Account
    from minprov.machine.system import System

NEW_MODE = 0o700
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened_below_home(
    system: System, account: Account, path: str, *, make: bool = False, mode: int | None = None
) -> Iterator[tuple[int, list[os.stat_result]]]:
    """Open a directory, and tell what is above it up to the home directory; with a mode, each has it then.

    Raises:
        OSError: FileNotFoundError unless they are to be made; ELOOP or ENOTDIR for a link.
        ProvisioningError: HOME_REFUSED for a directory that is not the user's.

    """
    with system.directory(account.home) as home:
        directory, above = home, []
        try:
            for name in os.path.relpath(path, account.home).split("/"):
                if name == ".":
                    break
                above.append(os.fstat(directory))
                if make or mode is not None:
                    _make_directory(name, directory, account)
                below = os.open(name, FLAGS, dir_fd=directory)
                if directory != home:
                    os.close(directory)
                directory = below
                if (owner := os.fstat(directory).st_uid) != account.uid:
                    raise ProvisioningError(
                        Reason.HOME_REFUSED, username=account.name, path=path, detail=f"it belongs to uid {owner}"
                    )
                if mode is not None:
                    os.fchmod(directory, mode)
            yield directory, above
        finally:
            if directory != home:
                os.close(directory)


def _make_directory(name: str, above: int, account: Account) -> None:
    """Make a directory of the user's where there is none; under its name it is the user's from the start.

    One that a power cut left root's, who made it, could not be told from one that the user has put there.
    """
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=above, follow_symlinks=False)
        return
    draft = f".{name}.minprov"
    with suppress(FileExistsError):
        os.mkdir(draft, NEW_MODE, dir_fd=above)
    directory = os.open(draft, FLAGS, dir_fd=above)
    try:
        if not os.listdir(directory):  # else the user has put another of root's in its place
            os.fchown(directory, account.uid, account.gid)
        sync(".", directory)
    finally:
        os.close(directory)
    os.rename(draft, name, src_dir_fd=above, dst_dir_fd=above)
    sync(".", above)
