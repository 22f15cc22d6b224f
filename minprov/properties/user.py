"""The administrator's account: passwd entry, supplementary groups, home directory.

The account is made by shadow-utils or busybox. The home directory is made here, beside its place and then renamed, so
that a run killed half way leaves no half copied one; it also serves adopted accounts that have none.
"""

from __future__ import annotations

import os
import shutil
import stat

from minprov.actions import EnsureUser
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import Account, existing_groups, find_account, groups_of, home_mode, uid_min
from minprov.machine.blocking import in_thread
from minprov.machine.files import file_error, make_directories, sync
from minprov.machine.system import System
from minprov.machine.tools import run_tool
from minprov.properties.inspection import Inspection

PASSWD, GROUP, LOGIN_DEFS, SKELETON = "/etc/passwd", "/etc/group", "/etc/login.defs", "/etc/skel"
FALLBACK_SHELL = "/bin/sh"


async def inspect(system: System, action: EnsureUser) -> Inspection:
    """Look at the passwd entry, the groups and the home directory.

    Raises `ProvisioningError` with `Reason.SYSTEM_ACCOUNT` for an account that is not an ordinary user's.
    """
    account = find_user(system, action.username)
    if account is None:
        return Inspection(False, "absent")
    lowest = uid_min(system.read_text(LOGIN_DEFS))
    if account.uid < lowest and not action.allow_system_account:
        raise ProvisioningError(Reason.SYSTEM_ACCOUNT, username=account.name, uid=account.uid, uid_min=lowest)
    faults = [f"not in group {name}" for name in _lacking_groups(system, action)]
    if fault := _home_fault(system, account):
        faults.append(fault)
    if _journal(system, action) in (_creating(action), _joining(action)):
        faults.append("left half made by a run that was killed")
    return Inspection(not faults, ", ".join([f"uid {account.uid}", *faults]))


async def converge(system: System, action: EnsureUser) -> None:
    """Create the account, or give an existing one what it lacks; its password is left as it is."""
    account = find_user(system, action.username)
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
    elif left_by_a_killed_run == _joining(action) or _lacking_groups(system, action):
        await system.replace(action.journal, _joining(action).encode(), mode=0o600)
        await _join(system, action)
    await system.sync(os.path.dirname(PASSWD))
    mode = home_mode(system.read_text(LOGIN_DEFS))
    try:
        await in_thread(_ensure_home, system, account, mode)
    except OSError as error:
        raise file_error(error, account.home) from error
    await system.restore_label(account.home)
    await system.remove(action.journal)


def find_user(system: System, username: str) -> Account | None:
    """Return the user's passwd entry, or None."""
    return find_account(system.read_text(PASSWD), username)


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


async def _create(system: System, action: EnsureUser) -> None:
    username = action.username
    shell = action.shell if system.exists(action.shell) else FALLBACK_SHELL
    if useradd := system.account_tool("useradd"):
        has_group = username in existing_groups(system.read_text(GROUP))
        group = ["--gid", username] if has_group else ["--user-group"]
        if groups := sorted(_wanted_groups(system, action)):
            group += ["--groups", ",".join(groups)]
        # "*" keeps the account open to key logins where sshd has `UsePAM no`; useradd's own "!" means locked to it.
        await run_tool([*useradd, "--no-create-home", "--shell", shell, "--password", "*", *group, "--", username])
    elif adduser := system.own_tool("adduser", "busybox adduser"):
        await run_tool([*adduser, "-D", "-H", "-s", shell, "--", username])
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


def _home_fault(system: System, account: Account) -> str | None:
    try:
        found = os.stat(system.path(account.home))
    except OSError:
        return f"no {account.home}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{account.home} is not a directory"
    if found.st_uid != account.uid:
        return f"{account.home} belongs to uid {found.st_uid}"
    # sshd's StrictModes refuses keys below a directory that others may write to.
    if found.st_mode & 0o022:
        return f"{account.home} has mode {stat.S_IMODE(found.st_mode):04o}"
    return None


def _ensure_home(system: System, account: Account, mode: int) -> None:
    home = system.path(account.home)
    try:
        found = os.stat(home)
    except FileNotFoundError:
        _make_home(system, account, home, mode)
        return
    if not stat.S_ISDIR(found.st_mode) or _is_of_the_system(system, home):
        return  # whatever it is, it is not the user's; the second look says so
    if found.st_uid != account.uid:
        os.chown(home, account.uid, account.gid)
    if found.st_mode & 0o022:
        os.chmod(home, stat.S_IMODE(found.st_mode) & ~0o022)


def _is_of_the_system(system: System, directory: str) -> bool:
    """Tell whether it is / or directly below it, as /etc and /root are: no place to give away."""
    real = os.path.realpath(directory)
    return system.root in (real, os.path.dirname(real))


def _make_home(system: System, account: Account, home: str, mode: int) -> None:
    parent, name = os.path.split(home)
    make_directories(parent, 0o755)
    temporary = os.path.join(parent, f".{name}.minprov")
    if os.path.lexists(temporary):
        shutil.rmtree(temporary)
    skeleton = system.path(SKELETON)
    if os.path.isdir(skeleton):
        shutil.copytree(skeleton, temporary, symlinks=True, copy_function=shutil.copy)
    else:
        os.mkdir(temporary)
    for directory, directories, files in os.walk(temporary, topdown=False):
        for name in (*directories, *files):
            _hand_over(os.path.join(directory, name), account)
    os.chmod(temporary, mode)
    _hand_over(temporary, account)
    os.rename(temporary, home)
    sync(parent)


def _hand_over(path: str, account: Account) -> None:
    os.chown(path, account.uid, account.gid, follow_symlinks=False)
    if stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
        sync(path)  # the skeleton's files must not come out empty after a power cut
