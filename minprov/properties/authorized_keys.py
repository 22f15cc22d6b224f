"""The keys that may log in as the user: ~/.ssh/authorized_keys, sshd(8).

An adopted user may own everything below the home directory, so nothing there is trusted: each step down is taken
from an open directory and follows no link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from minprov.actions import WriteAuthorizedKeys
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import Account
from minprov.formats.ssh_keys import contains_all, merge_keys
from minprov.machine.files import file_error, read_file, replace_file, sync
from minprov.machine.system import System
from minprov.properties.inspection import Inspection
from minprov.properties.user import find_user

DIRECTORY, FILE = ".ssh", "authorized_keys"
DIRECTORY_MODE, FILE_MODE = 0o700, 0o600


async def inspect(system: System, action: WriteAuthorizedKeys) -> Inspection:
    """Parse the file again, and check what sshd's StrictModes checks: owner and mode of it and its directory."""
    wanted = f"{len(action.keys)} key" + ("s" if len(action.keys) != 1 else "")
    account = find_user(system, action.username)
    if account is None:
        return Inspection(False, "no account")
    path = f"{account.home}/{DIRECTORY}/{FILE}"
    try:
        with _ssh_directory(system, account, create=False) as directory:
            contents = read_file(directory, FILE, owner=account.uid)
            if contents is None:
                return Inspection(False, "no file")
            strict = _is_private(os.fstat(directory), account) and _is_private(
                os.stat(FILE, dir_fd=directory, follow_symlinks=False), account
            )
    except FileNotFoundError:
        return Inspection(False, "no file")
    except PermissionError:
        return Inspection(None, "cannot be seen without privileges")
    except OSError as error:
        raise file_error(error, path) from error
    if not contains_all(contents.decode(errors="surrogateescape"), action.keys):
        return Inspection(False, f"lacks some of {wanted}")
    return Inspection(strict, f"has {wanted}" + ("" if strict else ", others may write to it"))


async def converge(system: System, action: WriteAuthorizedKeys) -> None:
    """Add the keys that are lacking; what is there stays."""
    account = find_user(system, action.username)
    if account is None:
        raise ProvisioningError(Reason.READ_BACK, detail=f"no account {action.username}")
    path = f"{account.home}/{DIRECTORY}/{FILE}"
    try:
        with _ssh_directory(system, account, create=True) as directory:
            existing = (read_file(directory, FILE, owner=account.uid) or b"").decode(errors="surrogateescape")
            merged = merge_keys(existing, action.keys).encode(errors="surrogateescape")
            owner = (account.uid, account.gid)
            await replace_file(directory, FILE, merged, mode=FILE_MODE, owner=owner)
    except OSError as error:
        raise file_error(error, path) from error
    await system.restore_label(f"{account.home}/{DIRECTORY}")


@contextmanager
def _ssh_directory(system: System, account: Account, *, create: bool) -> Iterator[int]:
    with system.directory(account.home) as home:
        if create:
            with suppress(FileExistsError):
                os.mkdir(DIRECTORY, DIRECTORY_MODE, dir_fd=home)
                sync(".", home)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        directory = os.open(DIRECTORY, flags, dir_fd=home)
    try:
        if create:
            os.fchown(directory, account.uid, account.gid)
            os.fchmod(directory, DIRECTORY_MODE)
        yield directory
    finally:
        os.close(directory)


def _is_private(found: os.stat_result, account: Account) -> bool:
    return found.st_uid == account.uid and not stat.S_IMODE(found.st_mode) & 0o022
