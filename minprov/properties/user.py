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
    groups_of,
    has_empty_password,
    home_mode,
    uid_max,
    uid_min,
)
from minprov.machine.blocking import look
from minprov.machine.files import file_error
from minprov.machine.system import System
from minprov.machine.tools import run_tool
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
    if _journal(system, action) in (_creating(action), _joining(action)):
        faults.append("left half made by a run that was killed")
    if _lacks_subordinate_ids(system, account):
        notes += (f"{account.name} has no subordinate ids",)
    return Inspection(not faults, ", ".join([f"uid {account.uid}", *faults]), notes=notes)


async def converge(system: System, action: EnsureUser) -> None:
    """Create the account, or give an existing one what it lacks; its password is left as it is."""
    account = find_user(system, action.username)
    new = False
    left_by_a_killed_run = _journal(system, action) if account else ""
    if left_by_a_killed_run == _creating(action):
        await _delete(system, action.username)
        account = None
    if account is None:
        await system.replace(action.journal, _creating(action).encode(), mode=0o600)
        try:
            await _create(system, action)
        except ProvisioningError:
            # Nothing was made: the journal must not be there when somebody else makes an account of that name.
            if find_user(system, action.username) is None:
                await system.remove(action.journal)
            raise
        account = find_user(system, action.username)
        if account is None:
            raise ProvisioningError(Reason.READ_BACK, detail="the account was not created")
        new = True
    elif left_by_a_killed_run == _joining(action) or _lacking_groups(system, action):
        await system.replace(action.journal, _joining(action).encode(), mode=0o600)
        await _join(system, action)
    if _has_empty_password(system, account):
        # Anybody who is on the system could become this account, and by sudo root.
        await set_password_field(system, action.username, "*")
    await account_state.mend(system, account)
    await system.sync(os.path.dirname(PASSWD))
    mode = home_mode(system.read_text(LOGIN_DEFS))
    try:
        made = await look(account.home, home.ensure_home, system, account, mode, new=new)
    except OSError as error:
        raise file_error(error, account.home) from error
    if made:
        await system.restore_label(account.home, recursive=True)
    await system.remove(action.journal)


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


def _journal(system: System, action: EnsureUser) -> str:
    return system.read_text(action.journal)


def _creating(action: EnsureUser) -> str:
    """Return what the journal says while an account is made: what a killed run has left of it is made anew."""
    return action.username


def _joining(action: EnsureUser) -> str:
    """Return what the journal says while an account of the image joins groups: gshadow may not know of it yet."""
    return f"{action.username} joins groups"


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
            await run_tool([*useradd, *arguments])
        except ProvisioningError as error:
            if NO_SUBORDINATE_IDS not in error.data.get("detail", "") or find_user(system, username):
                raise
            logger.warning("made without subordinate ids: %s", error)
            none = ["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0"]
            await run_tool([*useradd, *none, *arguments])
    elif adduser := system.own_tool("adduser", "busybox adduser"):
        group = ["-G", username] if has_group else []
        await run_tool([*adduser, "-D", "-H", "-s", shell, *group, "--", username])
        await set_password_field(system, username, "*")
        await _join(system, action)
    else:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="useradd", detail="nor is there busybox adduser")


async def _delete(system: System, username: str) -> None:
    if userdel := system.account_tool("userdel"):
        await run_tool([*userdel, "--", username])
    elif deluser := system.own_tool("deluser", "busybox deluser"):
        await run_tool([*deluser, username])  # busybox's takes "--" for one name more


async def _join(system: System, action: EnsureUser) -> None:
    """Have the account join all its groups, those too that it is in, as far as one can see."""
    username, groups = action.username, sorted(_wanted_groups(system, action))
    if not groups:
        return
    if usermod := system.account_tool("usermod"):
        await run_tool([*usermod, "--append", "--groups", ",".join(groups), "--", username])
    elif addgroup := system.own_tool("addgroup", "busybox addgroup"):
        for group in groups:
            await run_tool([*addgroup, "--", username, group])
    else:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="usermod", detail="nor is there busybox addgroup")


async def set_password_field(system: System, username: str, field: str) -> None:
    """Put an encrypted password, or ``*`` for none, in the shadow entry; it travels on the tool's stdin."""
    chpasswd = system.account_tool("chpasswd") or system.own_tool("chpasswd", "busybox chpasswd")
    if chpasswd is None:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="chpasswd")
    await run_tool([*chpasswd, "-e"], stdin=f"{username}:{field}\n".encode())
