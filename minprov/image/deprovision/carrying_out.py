"""Carry out a plan: each item is done, is read back, and says what came of it; a failure ends nothing but itself."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from minprov.actions import EnsureUser, LockRootPassword
from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import existing_groups, find_account
from minprov.image.deprovision import shutdown
from minprov.image.deprovision.rules import Act, Phase
from minprov.machine.account_locks import clear_up_after_tools, tools_effect
from minprov.machine.files import file_error, sync
from minprov.machine.manifest import KEYS, Effect, Manifest
from minprov.machine.tools import run_tool
from minprov.properties import root_password, user, withdrawal
from minprov.properties.authorized_keys import line_digests
from minprov.properties.name_service import PASSWD

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from minprov.image.deprovision.rules import Item
    from minprov.machine.system import System

FILE_MODE = 0o644
NAMED_BY_ACCOUNTS = (
    *("/var/mail", "/var/spool/mail", "/var/spool/cron/crontabs", "/var/spool/cron", "/var/lib/systemd/linger"),
    *("/var/lib/sudo/lectured", "/var/db/sudo/lectured"),
)


class Done(NamedTuple):
    """What came of an item; without an error it holds."""

    item: Item
    error: ProvisioningError | None = None


async def carry_out(system: System, items: Collection[Item], note: Callable[[str], None]) -> list[Done]:
    """Do all items in order; what records them stays if one has failed, so that the next run can finish."""
    clear_up_after_tools(system)  # after a run that was killed
    done: list[Done] = []
    for item in items:
        error = None
        failed = any(other.error for other in done)
        if item.phase is Phase.MANIFEST and not failed:
            _close_journal(system, incomplete=False)  # by the manifest the next run knows that something is left
        if item.phase is Phase.MANIFEST and failed:
            error = ProvisioningError(Reason.WRITE_FAILED, path=item.target, detail="kept, since something else failed")
        else:
            try:
                await _carry_out(system, item, note)
            except ProvisioningError as failure:
                error = failure
            except OSError as failure:
                error = file_error(failure, item.target)
        done.append(Done(item, error))
    _close_journal(system, incomplete=any(one.error for one in done))
    return done


def _close_journal(system: System, *, incomplete: bool) -> None:
    with suppress(OSError):  # one that stays says nothing that is not so
        system.journal.close(partial(withdrawal.confirm, system) if incomplete else lambda effect: None)


async def _carry_out(system: System, item: Item, note: Callable[[str], None]) -> None:
    if item.act is Act.DELETE:
        _delete(system, item.target)
    elif item.act is Act.EMPTY:
        _empty(system, item.target)
    elif item.act is Act.REWRITE:
        await system.replace_own(item.target, item.contents or b"", mode=FILE_MODE)
    elif item.act is Act.LOCK:
        await root_password.converge(system, LockRootPassword(administrator=""))
    elif item.act is Act.REMOVE_ACCOUNT and item.effect:
        await _remove_account(system, item.effect)
    elif item.act is Act.LEAVE_GROUPS and item.effect:
        await _leave_groups(system, item.effect)
    elif item.act is Act.STOP:
        await shutdown.stop(item.target)
    elif item.act is Act.COVER:
        await shutdown.cover(system, item.target)
    elif item.effect:
        await withdrawal.withdraw(system, Manifest(None, (item.effect,)), note, host_keys=True)
        if _holds(system, item.effect):
            raise ProvisioningError(Reason.READ_BACK, detail=f"{item.target} is as it was")
        if item.effect.kind == KEYS and system.read(item.target) == b"":
            _delete(system, item.target)


def _holds(system: System, effect: Effect) -> bool:
    """Tell whether an effect is there yet."""
    if effect.kind == KEYS:
        return not set(effect.names).isdisjoint(line_digests(system.read_text(effect.target)))
    return withdrawal.confirm(system, effect) is not None


def _delete(system: System, path: str) -> None:
    """Delete a file or a tree; nothing that another user may have put in its way is followed."""
    parent, name = os.path.split(path)
    with suppress(FileNotFoundError), system.directory(parent) as directory:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            _delete_tree(directory, name, found.st_dev)
        else:
            os.unlink(name, dir_fd=directory)
        sync(".", directory)
        if name in os.listdir(f"/proc/self/fd/{directory}"):
            raise ProvisioningError(Reason.READ_BACK, detail=f"{path} is there again")


def _delete_tree(directory: int, name: str, device: int) -> None:
    """Delete a directory and all below it; what is mounted there is left, and with it what is above."""
    opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if os.fstat(opened).st_dev != device:
            raise OSError(errno.EBUSY, "another file system is mounted there")
        for entry in os.listdir(opened):
            found = os.stat(entry, dir_fd=opened, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                _delete_tree(opened, entry, device)
            else:
                os.unlink(entry, dir_fd=opened)
    finally:
        os.close(opened)
    os.rmdir(name, dir_fd=directory)


def _empty(system: System, path: str) -> None:
    parent, name = os.path.split(path)
    with system.directory(parent) as directory:
        # In place: programs have logs open, and the machine id may be a mount of its own.
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(name, flags, dir_fd=directory)
        try:
            os.ftruncate(descriptor, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def _leave_groups(system: System, effect: Effect) -> None:
    await system.note(*tools_effect(system))
    try:
        for group in effect.names:
            if gpasswd := system.account_tool("gpasswd"):
                await run_tool([*gpasswd, "--delete", effect.target, group])
            elif deluser := system.own_tool("deluser", "busybox deluser"):
                await run_tool([*deluser, effect.target, group])
            else:
                raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="gpasswd", detail="nor is there busybox deluser")
    finally:
        clear_up_after_tools(system)
    if withdrawal.confirm(system, effect):
        raise ProvisioningError(Reason.READ_BACK, detail=f"{effect.target} is in {', '.join(effect.names)}")


async def _remove_account(system: System, effect: Effect) -> None:
    """Delete an account that minprov made, its home directory, and what is kept elsewhere by its name.

    The account goes last: its entry says where its home is, if this is cut off. Of one that a tool which was killed has
    left in some of the files, the tools want it whole before they delete it.
    """
    name = effect.target
    if find_account(system.read_text(PASSWD), name) is None:
        await user.converge(system, EnsureUser(name, groups=(), shell=user.FALLBACK_SHELL, allow_system_account=False))
    account = find_account(system.read_text(PASSWD), name)
    if account is None:
        raise ProvisioningError(Reason.READ_BACK, detail=f"{name} is in some files only")
    home = account.home.rstrip("/")
    parent, base = os.path.split(home)
    with suppress(FileNotFoundError), system.directory(parent) as directory:
        if os.stat(base, dir_fd=directory, follow_symlinks=False).st_uid == account.uid:
            _delete(system, home)
    for directory_of_names in NAMED_BY_ACCOUNTS:
        _delete(system, f"{directory_of_names}/{name}")
    await system.note(*tools_effect(system))
    try:
        if userdel := system.account_tool("userdel"):
            # By force: it is logged in where the builder works as it.
            await run_tool([*userdel, "--force", "--", name])
            # Without USERGROUPS_ENAB in login.defs(5) it leaves the account's group.
            if effect.gid is None and name in existing_groups(system.read_text(user.GROUP)):
                await run_tool([*(system.account_tool("groupdel") or ["groupdel"]), "--", name])
        elif deluser := system.own_tool("deluser", "busybox deluser"):
            await run_tool([*deluser, name])
        else:
            raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="userdel", detail="nor is there busybox deluser")
    finally:
        clear_up_after_tools(system)
    if find_account(system.read_text(PASSWD), name):
        raise ProvisioningError(Reason.READ_BACK, detail=f"{name} is there")
