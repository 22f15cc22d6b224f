"""The administrator's account: passwd entry and groups, by shadow-utils or busybox; `home` has its directory."""

from __future__ import annotations

import logging
import os

from minprov.actions import EnsureUser
from minprov.config import Options
from minprov.errors import ProvisioningError, Reason, excerpt
from minprov.formats.accounts import (
    Account,
    existing_groups,
    find_account,
    find_gid,
    find_password_field,
    groups_of,
    has_empty_password,
    home_mode,
    uid_max,
    uid_min,
)
from minprov.machine.account_locks import run_account_tool
from minprov.machine.blocking import look
from minprov.machine.files import file_error
from minprov.machine.manifest import ACCOUNT, GROUPS, PASSWORD, UNLOCKED, Effect, digest
from minprov.machine.system import System
from minprov.properties import account_state, home
from minprov.properties.inspection import Inspection
from minprov.properties.name_service import PASSWD, find_entry, find_user

logger = logging.getLogger(__name__)

SHADOW, GROUP, LOGIN_DEFS = "/etc/shadow", "/etc/group", "/etc/login.defs"
USUAL_GROUPS = Options().groups
NOBODY, NOBODY_UID = "nobody", 65534  # whoever runs as it is not one user: NFS and user namespaces map others to it
FALLBACK_SHELL = "/bin/sh"
SUBORDINATE_IDS = "/etc/subuid"
# useradd's words where the ranges of login.defs(5) are used up; its status also stands for files that are in a bad way.
NO_SUBORDINATE_IDS = "get unique subordinate"


async def inspect(system: System, action: EnsureUser) -> Inspection:
    """Look at the passwd entry, the groups and the home directory.

    Raises:
        ProvisioningError: SYSTEM_ACCOUNT for an account that is not an ordinary user's; HOME_REFUSED for a home that is
            not the account's; LOGIN_SHELL and LOGINS_CLOSED where nobody would get a shell; DIRECTORY_ACCOUNT for an
            account that the system's own files do not have.

    """
    account = find_user(system, action.username) or await _find_in_directory(system, action)
    notes = tuple(f"group {name} is passed over: {where}" for name, where in await _foreign_groups(system, action))
    if account is None:
        account_state.require_open(system, action.username, _shell_of_new(system, action))
        return Inspection(False, "absent", notes=notes)
    _refuse_system_account(system, account, allowed=action.allow_system_account)
    account_state.require_open(system, account.name, account.shell)
    faults = [f"not in group {name}" for name in _lacking_groups(system, action)]
    if _has_empty_password(system, account):
        faults.append("its password is empty")
    if fault := account_state.find_fault(system, account):
        faults.append(fault)
    if lack := await look(account.home, home.find_lack, system, account):
        faults.append(lack)
    if _is_half_made(system, action, account) or _has_half_joined(system, action) or _has_draft(system, account):
        faults.append("left half made by a run that was killed")
    if _lacks_subordinate_ids(system, account):
        notes += (f"{account.name} has no subordinate ids",)
    return Inspection(not faults, ", ".join([f"uid {account.uid}", *faults]), notes=notes)


async def converge(system: System, action: EnsureUser) -> None:
    """Create the account, or give an existing one what it lacks; its password is left as it is."""
    account = find_user(system, action.username)
    new = False
    if account and _is_half_made(system, action, account) and _is_untouched(system, action, account):
        await _delete(system, action.username)
        account = None
    if account is None:
        await _create(system, action)
        account = find_user(system, action.username)
        if account is None:
            raise ProvisioningError(Reason.READ_BACK, detail="the account was not created")
        system.journal.finish(ACCOUNT, action.username)
        new = True
    elif _has_half_joined(system, action) or _lacking_groups(system, action):
        await _join(system, action)
    if _has_empty_password(system, account):
        # Anybody who is on the system could become this account, and by sudo root.
        await set_password_field(system, action.username, "*")
    await account_state.mend(system, account)
    await system.sync(os.path.dirname(PASSWD))
    mode = home_mode(system.read_text(LOGIN_DEFS))
    try:
        made = await look(account.home, home.ensure_home, system, account, mode, new=new)
        if _has_draft(system, account):
            await look(account.home, home.remove_draft, system, account)
    except OSError as error:
        raise file_error(error, account.home) from error
    if made:
        await system.restore_label(account.home, recursive=True)
    for kind in (ACCOUNT, GROUPS):
        if effect := system.journal.find_left_over(kind, action.username):
            system.journal.settle(effect)


async def _find_in_directory(system: System, action: EnsureUser) -> Account | None:
    """Return the account that only another database has, where it is to be adopted."""
    entry = await find_entry(system, "passwd", action.username)
    if entry is None:
        return None
    if not action.allow_directory_account:
        raise ProvisioningError(Reason.DIRECTORY_ACCOUNT, username=action.username, entry=excerpt(entry, 128))
    system.directory_accounts[action.username] = entry
    return find_account(entry, action.username)


async def _foreign_groups(system: System, action: EnsureUser) -> list[tuple[str, str]]:
    """Return the groups that cannot be joined and why; of the usual ones an image lacks some, which is nothing."""
    missing = [name for name in action.groups if name not in _wanted_groups(system, action)]
    found = []
    for name in missing:
        if await find_entry(system, "group", name):
            found.append((name, "another database has it"))
        elif name not in USUAL_GROUPS:
            found.append((name, "nobody has it"))
    return found


def _lacks_subordinate_ids(system: System, account: Account) -> bool:
    ranges = [line.split(":")[0] for line in system.read_text(SUBORDINATE_IDS).splitlines()]
    return bool(ranges) and account.name not in ranges and str(account.uid) not in ranges


def _refuse_system_account(system: System, account: Account, *, allowed: bool) -> None:
    definitions = system.read_text(LOGIN_DEFS)
    lowest, highest = uid_min(definitions), uid_max(definitions)
    is_nobody = account.name == NOBODY or account.uid == NOBODY_UID
    if is_nobody or (not allowed and not lowest <= account.uid <= highest):
        raise ProvisioningError(
            Reason.SYSTEM_ACCOUNT, username=account.name, uid=account.uid, uid_min=lowest, uid_max=highest
        )


def _has_empty_password(system: System, account: Account) -> bool:
    try:
        return has_empty_password(system.read_text(PASSWD), system.read_text(SHADOW), account.name)
    except ProvisioningError as error:
        if error.reason is Reason.NOT_PERMITTED:  # a dry run without privileges
            return False
        raise


def _creation(system: System, username: str) -> Effect:
    left = system.journal.find_left_over(ACCOUNT, username)
    gid = left.gid if left else find_gid(system.read_text(GROUP), username)
    return Effect(ACCOUNT, username, gid=gid)


def _is_half_made(system: System, action: EnsureUser, account: Account) -> bool:
    """Tell whether a run was killed while it made the account: what it makes last is the home directory."""
    if not system.journal.find_left_over(ACCOUNT, action.username):
        return False
    try:
        with system.directory(account.home) as directory:
            return os.fstat(directory).st_uid != account.uid
    except OSError:
        return True


def _has_draft(system: System, account: Account) -> bool:
    """Tell whether a run was killed between the last two steps of making the home."""
    left = system.journal.find_left_over(ACCOUNT, account.name)
    return left is not None and home.has_draft(system, account)


def _has_half_joined(system: System, action: EnsureUser) -> bool:
    """Tell whether a run was killed while an account of the image joined groups: gshadow may not know of it yet."""
    return system.journal.find_left_over(GROUPS, action.username) is not None


def _is_untouched(system: System, action: EnsureUser, account: Account) -> bool:
    """Tell whether nobody has put an account right that a killed run left half made."""
    as_made = account.shell in (action.shell, FALLBACK_SHELL)
    joined = groups_of(system.read_text(GROUP), account.name) <= {*_wanted_groups(system, action), account.name}
    no_password = find_password_field(system.read_text(SHADOW), account.name) in (None, "*", "!")
    return as_made and joined and no_password


def _wanted_groups(system: System, action: EnsureUser) -> set[str]:
    return set(action.groups) & existing_groups(system.read_text(GROUP))


def _lacking_groups(system: System, action: EnsureUser) -> list[str]:
    joined = groups_of(system.read_text(GROUP), action.username)
    return sorted(_wanted_groups(system, action) - joined)


def _shell_of_new(system: System, action: EnsureUser) -> str:
    return action.shell if system.exists(action.shell) else FALLBACK_SHELL


async def _create(system: System, action: EnsureUser) -> None:
    username = action.username
    shell = _shell_of_new(system, action)
    has_group = username in existing_groups(system.read_text(GROUP)) or await find_entry(system, "group", username)
    if useradd := system.account_tool("useradd"):
        group = ["--gid", username] if has_group else ["--user-group"]
        if groups := sorted(_wanted_groups(system, action)):
            group += ["--groups", ",".join(groups)]
        # "*" keeps the account open to key logins where sshd has `UsePAM no`; useradd's own "!" means locked to it.
        arguments = ["--no-create-home", "--shell", shell, "--password", "*", *group, "--", username]
        try:
            await run_account_tool(system, [*useradd, *arguments], _creation(system, username))
        except ProvisioningError as error:
            if NO_SUBORDINATE_IDS not in error.data.get("detail", "") or find_user(system, username):
                raise
            logger.warning("made without subordinate ids: %s", error)
            none = ["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0"]
            await run_account_tool(system, [*useradd, *none, *arguments])
    elif adduser := system.own_tool("adduser", "busybox adduser"):
        group = ["-G", username] if has_group else []
        await run_account_tool(
            system, [*adduser, "-D", "-H", "-s", shell, *group, "--", username], _creation(system, username)
        )
        await set_password_field(system, username, "*")
        await _join(system, action)
    else:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="useradd", detail="nor is there busybox adduser")


async def _delete(system: System, username: str) -> None:
    """Delete an account that this program has made, but not the group of its name if that was there before."""
    effect = system.journal.find_left_over(ACCOUNT, username)
    if userdel := system.account_tool("userdel"):
        await run_account_tool(system, [*userdel, "--", username])
    elif deluser := system.own_tool("deluser", "busybox deluser"):
        await run_account_tool(system, [*deluser, username])  # busybox's takes "--" for one name more
    if effect and effect.gid is not None and find_gid(system.read_text(GROUP), username) is None:
        if groupadd := system.account_tool("groupadd"):
            await run_account_tool(system, [*groupadd, "--gid", str(effect.gid), "--", username])
        elif addgroup := system.own_tool("addgroup", "busybox addgroup"):
            await run_account_tool(system, [*addgroup, "-g", str(effect.gid), username])
        else:
            raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="groupadd", detail="nor is there busybox addgroup")


async def _join(system: System, action: EnsureUser) -> None:
    """Have the account join all its groups, those too that it is in, as far as one can see."""
    username, groups = action.username, sorted(_wanted_groups(system, action))
    if not groups:
        return
    joined = Effect(GROUPS, username, names=tuple(_lacking_groups(system, action)))
    if usermod := system.account_tool("usermod"):
        await run_account_tool(system, [*usermod, "--append", "--groups", ",".join(groups), "--", username], joined)
    elif addgroup := system.own_tool("addgroup", "busybox addgroup"):
        for group in groups:
            await run_account_tool(system, [*addgroup, "--", username, group], joined)
    else:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="usermod", detail="nor is there busybox addgroup")
    system.journal.finish(GROUPS, username)


async def unlock(system: System, username: str) -> None:
    """Have an account be without a password, as before, and without the lock that sshd minds where it uses no PAM."""
    await set_password_field(system, username, "*", Effect(UNLOCKED, username))


async def set_password_field(system: System, username: str, field: str, *effects: Effect) -> None:
    """Put an encrypted password, or ``*`` for none, in the shadow entry; it travels on the tool's stdin."""
    chpasswd = system.account_tool("chpasswd") or system.own_tool("chpasswd", "busybox chpasswd")
    if chpasswd is None:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="chpasswd")
    given = [] if field in ("*", "!") else [Effect(PASSWORD, username, sha256=digest(field.encode()))]
    await run_account_tool(system, [*chpasswd, "-e"], *given, *effects, stdin=f"{username}:{field}\n".encode())
