"""What the user may do as root: a file in sudoers.d, sudoers(5), and sudo's own word that it counts.

Of several rules for a user the last one that sudo reads counts. Where a later one of the image's wins, or none of the
directory's files is read, /etc/sudoers includes the file at its end.
"""

from __future__ import annotations

import os
import stat
from functools import partial

from minprov.actions import GrantSudo
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import Account
from minprov.formats.sudo_listing import Listing, parse_listing
from minprov.machine.file_systems import is_nosuid
from minprov.machine.system import System
from minprov.machine.tools import run_tool
from minprov.properties import pam
from minprov.properties.inspection import Inspection
from minprov.properties.name_service import find_user
from minprov.properties.sshd_settings import groups_of_user

SUDOERS, PASSWD, GROUP = "/etc/sudoers", "/etc/passwd", "/etc/group"
MODE = 0o440
# With these defaults sudo asks for a password that the user does not have, or for a terminal; makes the user another
# one than root; wants a password, and asks for none.
OTHERS_PASSWORD = ("targetpw", "rootpw", "runaspw")
TERMINAL = "requiretty"
RUNS_AS, TRIES = "runas_default", "passwd_tries"
# By name, so that a run which finds them tells its own work from another's.
PUT_RIGHT = {
    **{flag: f"!{flag}" for flag in (*OTHERS_PASSWORD, TERMINAL)},
    RUNS_AS: f"{RUNS_AS}=root",
    TRIES: f"{TRIES}=3",
}
# What an early sudo-rs says, which has no option -U: it goes by its file then.
UNKNOWN_OPTION = ("usage:", "invalid option", "unrecognized option")
# sudo-rs fails for a user to whom no rule applies; sudo has begun to.
NOTHING_GRANTED = ("is not allowed to execute 'list'", "is not allowed to run sudo")
# Not "-q", which keeps back what the fault is. Of a file that is named visudo asks for no mode that sudo does not.
CHECK = ("-c", "-f")
UNASKED = Listing((), everything=True, no_password=True)
NOTHING = Listing((), everything=False, no_password=False)
# As the first word of a rule such a name is an alias, if there is one, or an address; a uid is neither. sudoers(5)
ADDRESS_CHARACTERS = frozenset("0123456789.")
ALIAS_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


async def inspect(system: System, action: GrantSudo) -> Inspection:
    """Ask sudo what the user may do; a system without sudo needs nothing.

    Raises `ProvisioningError` where sudo cannot be asked, or is of no use to the user.
    """
    asks = system.live and os.geteuid() == 0
    account = find_user(system, action.username)
    sudo = system.own_tool("sudo")
    if sudo is None and (doas := system.own_tool("doas")):
        from minprov.properties.doas import inspect as inspect_doas  # few systems have it

        if asks:
            _require_setuid(action, doas[0])
        return await inspect_doas(system, action, account, doas)
    if sudo is None:
        return Inspection(True, "sudo is not installed", verified=False)
    if asks:
        _require_setuid(action, sudo[0])
    contents = system.read(action.path)
    if account is None or contents is None:
        if asks and system.look_only:
            await _check(system, system.own_tool("visudo"))
            await _ask(system, sudo, action, "root")
        return Inspection(False, "no account" if account is None else "no file")
    found = os.stat(system.path(action.path))
    if stat.S_IMODE(found.st_mode) != MODE or found.st_uid != os.geteuid():
        return Inspection(False, f"{action.path} has another mode or owner")
    listing = await _ask(system, sudo, action, action.username) if asks else UNASKED
    if contents not in (_rule(action, account, ()), _rule(action, account, _said(listing))):
        return Inspection(False, f"{action.path} says something else")
    if fault := _fault(listing, action):
        return Inspection(False, fault)
    notes = await pam.require_admission(system, "sudo", account.name)
    return Inspection(True, "grants it", verified=listing is not UNASKED and not notes, notes=notes)


async def converge(system: System, action: GrantSudo) -> None:
    """Put the rule in place, and make sure that it counts.

    Raises `ProvisioningError` where it does not, with what is in the way.
    """
    sudo = system.own_tool("sudo")
    account = find_user(system, action.username)
    if sudo is None:
        from minprov.properties.doas import converge as converge_doas

        await converge_doas(system, action)
        return
    if account is None:
        return
    before = {path: system.read(path) for path in (action.path, SUDOERS)}
    try:
        listing = await _put_in_place(system, sudo, action, account)
    except ProvisioningError:
        await system.take_back(before)
        raise
    if fault := _fault(listing, action):
        raise await _refusal(system, action, account, fault)


async def _put_in_place(system: System, sudo: list[str], action: GrantSudo, account: Account) -> Listing:
    """Write the rule where it counts, and return what sudo says then.

    Raises `ProvisioningError` where visudo finds a fault in what sudo's configuration would be, or sudo in what it is.
    """
    write = partial(_write, system, sudo, action)
    listing = await write(action.path, _rule(action, account, ()), MODE)
    if _wrong_default(listing):
        listing = await write(action.path, _rule(action, account, _said(listing)), MODE)
    sudoers = system.read(SUDOERS)
    if _fault(listing, action) and sudoers is not None and not _includes_last(system, action):
        mode = stat.S_IMODE(os.stat(system.path(SUDOERS)).st_mode)
        listing = await write(SUDOERS, sudoers.rstrip(b"\n") + b"\n" + _include(action), mode)
    return listing


async def _write(system: System, sudo: list[str], action: GrantSudo, path: str, contents: bytes, mode: int) -> Listing:
    visudo = system.own_tool("visudo")
    if visudo:
        await _try(system, visudo, path, contents)
    _close_directory(system, os.path.dirname(action.path))
    await system.replace(path, contents, mode=mode)
    return await _ask(system, sudo, action, action.username) if system.live else UNASKED


async def _try(system: System, visudo: list[str], path: str, contents: bytes) -> None:
    """Have visudo read the whole as it is to be, before any of it is in place; raises TOOL_FAILED with what it says.

    A fault that the image's own files have is found here, too: it is named by file and line, and nothing was changed.
    """
    if path != SUDOERS and system.exists(SUDOERS):
        contents = f"#include {SUDOERS}\n".encode() + contents
    # By a name with a dot, which sudo passes over; sudo-rs' visudo reads no standard input.
    directory, name = os.path.split(path)
    await system.read_draft([*visudo, *CHECK], f"{directory}/.{name}.draft", contents, mode=MODE)


async def _check(system: System, visudo: list[str] | None) -> None:
    if visudo and system.exists(SUDOERS):
        await run_tool([*visudo, *CHECK, SUDOERS])


async def _ask(system: System, sudo: list[str], action: GrantSudo, username: str) -> Listing:
    """Ask sudo, once for each state of its files and of the account databases."""
    key = ("sudo", username, *_state(system, os.path.dirname(action.path)))
    if key not in system.answers:
        command = [*sudo, "-l", "-U", username]
        try:
            printed = await _print(system, command)
        except ProvisioningError as error:
            detail = error.data.get("detail", "")
            if any(words in detail.lower() for words in UNKNOWN_OPTION):
                return UNASKED
            if any(words in detail for words in NOTHING_GRANTED):
                return NOTHING
            raise ProvisioningError(Reason.SUDO_REFUSED, username=action.username, detail=detail) from error
        system.answers[key] = parse_listing(printed)
    answer: Listing = system.answers[key]
    return answer


async def _print(system: System, command: list[str]) -> str:
    """Return what sudo prints, on a terminal if it wants one for root as well."""
    try:
        return await run_tool(command)
    except ProvisioningError as error:
        script = system.own_tool("script")
        if script is None or "tty" not in error.data.get("detail", ""):
            raise
    return (await run_tool([*script, "-qec", " ".join(command), "/dev/null"])).replace("\r\n", "\n")


def _state(system: System, directory: str) -> list[tuple[str, bytes | None]]:
    """Return what sudo's answer depends on, as far as anything changes in a run."""
    paths = [SUDOERS, PASSWD, GROUP]
    paths += [f"{directory}/{name}" for name in _list_directory(system, directory)]
    return [(path, system.read(path)) for path in paths]


def _list_directory(system: System, path: str) -> list[str]:
    """Return the names of the files in a directory, none where there is no such directory."""
    try:
        with os.scandir(system.path(path)) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _fault(listing: Listing, action: GrantSudo) -> str:
    if not listing.everything:
        return "not all commands are granted"
    if not action.ask_password and not listing.no_password:
        return "a password is asked, and there is none"
    wrong = _wrong_default(listing)
    return "" if listing.no_password and wrong.startswith((*OTHERS_PASSWORD, TRIES)) else wrong


def _wrong_default(listing: Listing) -> str:
    """Return in words what sudo's defaults have against the user."""
    if listing.is_on(TERMINAL):
        return f"{TERMINAL} is on"
    if (user := listing.value(RUNS_AS)) not in (None, "root", "#0"):
        return f"{RUNS_AS} is {user}"
    if listing.value(TRIES) == "0":
        return f"{TRIES} is 0"
    flag = next((flag for flag in OTHERS_PASSWORD if listing.is_on(flag)), "")
    return f"{flag} is on: another password is asked" if flag else ""


async def _refusal(system: System, action: GrantSudo, account: Account, fault: str) -> ProvisioningError:
    """Return the error that names the line in the way, where it can be told."""
    from minprov.formats.sudoers import find_default, read_lines, rules_for

    def read(path: str) -> str | None:
        return system.read_text(path) if os.path.isfile(system.path(path)) else None

    lines = read_lines(read, partial(_list_directory, system))
    flag = fault.split(" ")[0]
    groups = sorted(await groups_of_user(system, account.name))
    rules = rules_for(lines, account.name, account.uid, groups)
    line = find_default(lines, flag) or next((rule for rule in reversed(rules) if rule.file != action.path), None)
    return ProvisioningError(
        Reason.SUDO_REFUSED,
        username=account.name,
        detail=fault,
        file=line and line.file,
        line=line and line.number,
        setting=line and line.text,
    )


def _require_setuid(action: GrantSudo, sudo: str) -> None:
    detail, found = None, os.stat(sudo)
    if not found.st_mode & stat.S_ISUID or found.st_uid != 0:
        detail = f"{sudo} is not setuid root"
    elif is_nosuid(sudo):
        detail = f"{sudo} is on a file system that is mounted nosuid"
    if detail:
        raise ProvisioningError(Reason.SUDO_REFUSED, username=action.username, detail=detail)


def _close_directory(system: System, directory: str) -> None:
    """Take from others that they may write to the directory: sudo refuses to read it then."""
    path = system.path(directory)
    if os.path.isdir(path) and (mode := stat.S_IMODE(os.stat(path).st_mode)) & 0o022:
        os.chmod(path, mode & ~0o022)


def _said(listing: Listing) -> tuple[str, ...]:
    """Return what puts right all that is said of the defaults which can be wrong."""
    return tuple(right for name, right in PUT_RIGHT.items() if listing.mentions(name))


def _rule(action: GrantSudo, account: Account, defaults: tuple[str, ...]) -> bytes:
    comment = "# Written by minprov for the administrator that this VM was created with.\n"
    is_alias = account.name[0].isupper() and ALIAS_CHARACTERS.issuperset(account.name)
    is_address = ADDRESS_CHARACTERS.issuperset(account.name)
    user = f"#{account.uid}" if is_alias or is_address else account.name
    line = f"Defaults:{user} {', '.join(defaults)}\n" if defaults else ""
    tag = "" if action.ask_password else " NOPASSWD:"
    return f"{comment}{line}{user} ALL=(ALL:ALL){tag} ALL\n".encode()


def _include(action: GrantSudo) -> bytes:
    # Not "@include", which sudo knows from 1.9.1 on.
    return f"# Written by minprov: the last rule for a user is the one that counts.\n#include {action.path}\n".encode()


def _includes_last(system: System, action: GrantSudo) -> bool:
    return (system.read(SUDOERS) or b"").endswith(_include(action))
