"""The home directory of an account: made here, or the account's own already; nothing else is handed over.

It is made beside its place and then renamed, so that a run killed half way leaves no half copied one. What stands in
the place of a new account's home belongs to an account that was deleted: it is set aside, and so are the keys in it.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from minprov.deferred import without
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import find_name
from minprov.machine.directories import is_held_by_root
from minprov.machine.files import file_error, sync

if TYPE_CHECKING:
    from minprov.formats.accounts import Account
    from minprov.machine.system import System

with without("bz2", "lzma"):  # which it needs for archives
    import shutil

logger = logging.getLogger(__name__)

SKELETON = "/etc/skel"
OPEN_ABOVE = "others may write to the directory above it"


def find_lack(system: System, account: Account) -> str | None:
    """Return what the home directory lacks, or None.

    Raises:
        ProvisioningError: HOME_REFUSED for what is there and is not the account's.

    """
    try:
        with system.directory(account.home) as home:
            found = os.fstat(home)
    except FileNotFoundError:
        return f"no {account.home}"
    except PermissionError as error:
        raise file_error(error, account.home) from error
    except OSError as error:
        raise _refusal(account, error.strerror or str(error)) from error
    if found.st_uid != account.uid:
        raise _refusal(account, f"it belongs to uid {found.st_uid}")
    mode = stat.S_IMODE(found.st_mode)
    return f"{account.home} has mode {mode:04o}" if mode != _usable(mode) else None


def ensure_home(system: System, account: Account, mode: int, *, new: bool) -> bool:
    """Make the directory, or give it a mode with which it is of use; `new` is an account that was just made.

    Returns whether it was made.

    Raises:
        OSError: where that is not possible.
        ProvisioningError: HOME_REFUSED for what is there and is not the account's.

    """
    if new:
        _set_aside_what_is_left_over(system, account)
    lack = find_lack(system, account)
    if lack is None:
        return False
    try:
        with system.directory(account.home) as home:
            descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=home)
    except FileNotFoundError:
        _make(system, account, mode)
        return True
    try:
        os.fchmod(descriptor, _usable(stat.S_IMODE(os.fstat(descriptor).st_mode)))
    finally:
        os.close(descriptor)
    return False


def has_draft(system: System, account: Account) -> bool:
    """Tell whether the place where a home is made is there yet, from a run that was killed when the home was whole."""
    return os.path.isdir(system.path(_draft(account)))


def remove_draft(system: System, account: Account) -> None:
    """Remove that place, which is empty; raises OSError."""
    parent, name = os.path.split(_draft(account))
    with suppress(FileNotFoundError), system.directory(parent) as directory:
        os.rmdir(name, dir_fd=directory)
        sync(".", directory)


def _draft(account: Account) -> str:
    parent, name = os.path.split(account.home)
    return f"{parent}/.{name}.minprov"


def _usable(mode: int) -> int:
    """Return a mode with which sshd finds the keys: it reads as the user, and StrictModes wants no other to write."""
    return mode & ~0o022 | 0o700


def _set_aside_what_is_left_over(system: System, account: Account) -> None:
    parent, name = os.path.split(account.home)
    try:
        with system.directory(account.home) as home:
            owner = os.fstat(home).st_uid
            if owner == account.uid:
                _set_aside_keys(home, account)
                return
    except OSError:
        return  # nothing is there; or it is no home, which is found when it is looked at
    if find_name(system.read_text("/etc/passwd"), owner) is not None:
        return
    saved = f"{name}.of-uid-{owner}"
    with system.directory(parent) as directory:
        if not is_held_by_root(directory):
            raise _refusal(account, OPEN_ABOVE)
        if _exists(saved, directory):
            raise _refusal(account, f"it is left over from uid {owner}, and so is {saved}")
        os.rename(name, saved, src_dir_fd=directory, dst_dir_fd=directory)
    logger.warning("%s was left over from uid %d: set aside as %s", account.home, owner, saved)


def _set_aside_keys(home: int, account: Account) -> None:
    keys, saved = "authorized_keys", "authorized_keys.left-over"
    with suppress(FileNotFoundError, NotADirectoryError):
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        directory = os.open(".ssh", flags, dir_fd=home)
        try:
            os.rename(keys, saved, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            os.close(directory)
        logger.warning("%s/.ssh/%s is older than the account: set aside as %s", account.home, keys, saved)


def _make(system: System, account: Account, mode: int) -> None:
    parent, name = os.path.split(account.home)
    workshop = os.path.basename(_draft(account))
    with system.directory(parent, make=0o755) as directory:
        if _exists(name, directory):
            raise _refusal(account, "it is a link that leads nowhere")
        if is_held_by_root(directory):
            _remove(f"/proc/self/fd/{directory}/{workshop}")
        elif os.fstat(directory).st_uid != os.geteuid():
            raise _refusal(account, OPEN_ABOVE)
        # Nobody else can enter it, and change what is being made, until it is whole: not even where others may write to
        # the directory above, and may move it about.
        with suppress(FileExistsError):  # of a run that was killed
            os.mkdir(workshop, 0o700, dir_fd=directory)
        inside = os.open(workshop, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        place = f"/proc/self/fd/{inside}/home"
        try:
            found = os.fstat(inside)
            if (found.st_uid, stat.S_IMODE(found.st_mode)) != (os.geteuid(), 0o700):
                raise _refusal(account, f"somebody else's directory is in the place of its draft, {workshop}")
            _remove(place)
            os.mkdir(place, 0o700)
            skeleton = system.path(SKELETON)
            if os.path.isdir(skeleton):
                _copy(skeleton, place, account)
            os.chmod(place, mode)
            _hand_over(place, account)
            os.rename("home", name, src_dir_fd=inside, dst_dir_fd=directory)
        finally:
            _remove(place)
            os.close(inside)
            os.rmdir(workshop, dir_fd=directory)
        sync(".", directory)


def _copy(skeleton: str, place: str, account: Account) -> None:
    """Copy the files, directories and links below a directory, as the account's; what else there is stays behind."""
    with os.scandir(skeleton) as entries:
        for entry in entries:
            copy = f"{place}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), copy)
            elif entry.is_dir():
                os.mkdir(copy, 0o700)
                _copy(entry.path, copy, account)
            elif entry.is_file():
                shutil.copyfile(entry.path, copy)
            else:
                continue
            if not entry.is_symlink():
                shutil.copymode(entry.path, copy)
            _hand_over(copy, account)


def _hand_over(path: str, account: Account) -> None:
    os.chown(path, account.uid, account.gid, follow_symlinks=False)
    if not os.path.islink(path):
        sync(path)  # the skeleton's files must not come out empty after a power cut


def _remove(place: str) -> None:
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place)
    elif os.path.lexists(place):
        os.unlink(place)


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _refusal(account: Account, detail: str) -> ProvisioningError:
    return ProvisioningError(Reason.HOME_REFUSED, username=account.name, path=account.home, detail=detail)
