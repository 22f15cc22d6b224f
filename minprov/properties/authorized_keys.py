"""The keys that may log in as the user, in the files where sshd looks for them: sshd(8), sshd_config(5).

sshd itself says which files those are. An adopted user may own everything below the home directory, so nothing there is
trusted: each step down is taken from an open directory and follows no link.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from minprov.actions import WriteAuthorizedKeys
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import Account, find_name, find_password_field
from minprov.formats.ssh_keys import KEY_LINE, contains_all, merge_keys, rsa_bits
from minprov.machine.blocking import look
from minprov.machine.files import file_error, read_file, replace_file
from minprov.machine.manifest import KEYS, Effect, digest
from minprov.machine.system import System
from minprov.properties.inspection import Inspection
from minprov.properties.login import Key, Obstacle, admission_notes, key_obstacle, require_login
from minprov.properties.name_service import PASSWD, find_user
from minprov.properties.sshd_settings import (
    OUTSIDE,
    Settings,
    ask_sshd,
    files_matching,
    groups_of_user,
    read_config,
)
from minprov.properties.user import SHADOW, unlock
from minprov.properties.user_directories import opened_below_home

NO_ENTRY = "the user may not enter a directory above it"
DEFAULT_FILES = ".ssh/authorized_keys"
DIRECTORY_MODE, FILE_MODE, ROOTS_FILE_MODE = 0o700, 0o600, 0o644
MAX_SIZE = 1 << 20
"""More than a thousand keys. Beyond that sshd itself is slow, and so would be the look at each of them here."""


async def inspect(system: System, action: WriteAuthorizedKeys) -> Inspection:
    """Ask sshd whether and where it looks for keys, and look there as it would: at owners and modes too.

    Raises `ProvisioningError` for a setting of sshd that keeps the user out.
    """
    answers = await _ask(system, action)
    wanted = f"{len(action.keys)} key" + ("s" if len(action.keys) != 1 else "")
    account = find_user(system, action.username)
    if account is None:
        return Inspection(False, "no account")
    try:
        if _is_locked(system, account, answers):
            return Inspection(False, "the account is locked, which sshd minds where it does not use PAM")
        for files in await _files_of(system, answers, account):
            found = [await look(path, _read_as_sshd, system, account, path) for path in files]
            usable = "\n".join(contents for contents, fault in found if not fault)
            if not contains_all(usable, action.keys):
                faults = [f"{path}: {fault}" for path, (_, fault) in zip(files, found, strict=True) if fault]
                return Inspection(False, faults[0] if faults else f"{files[0]} lacks some of {wanted}")
    except PermissionError:
        return Inspection(None, "cannot be seen without privileges")
    asked = f", sshd asked for {len(answers)} connections" if answers and len(answers) > 1 else ""
    notes = await admission_notes(system, account.name, answers)
    return Inspection(True, f"has {wanted}{asked}", verified=not notes, notes=notes)


async def converge(system: System, action: WriteAuthorizedKeys) -> None:
    """Add the keys that are lacking to the first file where sshd looks; what is there stays.

    Raises `ProvisioningError` where sshd would not read it: others may write above it, or the user may not enter.
    """
    account = find_user(system, action.username)
    if account is None:
        raise ProvisioningError(Reason.READ_BACK, detail=f"no account {action.username}")
    answers = await _ask(system, action)
    if _is_locked(system, account, answers):
        await unlock(system, account.name)
    for files in await _files_of(system, answers, account):
        await _write(system, account, files[0], action.keys)
        if fault := _read_as_sshd(system, account, files[0])[1]:
            raise ProvisioningError(Reason.KEYS_NOT_ACCEPTED, username=account.name, path=files[0], detail=fault)


async def _ask(system: System, action: WriteAuthorizedKeys) -> list[Settings] | None:
    answers = await ask_sshd(system, action.username, action.groups)
    keys = [Key(found["type"], rsa_bits(key)) for key in action.keys if (found := re.fullmatch(KEY_LINE, key))]

    def obstacle_of(settings: Settings, groups: set[str]) -> Obstacle | None:
        found = key_obstacle(settings, action.username, groups, keys, password=action.with_password)
        return found or _revocation(system, settings, action.keys)

    if answers:
        await require_login(system, action.username, action.groups, answers, obstacle_of)
    return answers


def _revocation(system: System, settings: Settings, keys: Sequence[str]) -> Obstacle | None:
    """Tell whether sshd takes all the keys for revoked, as it does where it cannot read the list of those that are."""
    path = settings.one("revokedkeys")
    if path.lower() in ("", "none"):
        return None
    revoked = system.read(path)
    if revoked is None:
        return Obstacle(Reason.KEYS_NOT_ACCEPTED, "RevokedKeys", f"{path}, which is not there")
    found = [re.fullmatch(KEY_LINE, key) for key in keys]
    if all(key and key["base64"].encode() in revoked for key in found):
        return Obstacle(Reason.KEYS_NOT_ACCEPTED, "RevokedKeys", f"{path}, which has the keys")
    return None


def _is_locked(system: System, account: Account, answers: Sequence[Settings] | None) -> bool:
    if not answers or answers[0].is_on("usepam"):
        return False
    return (find_password_field(system.read_text(SHADOW), account.name) or "").startswith("!")


async def _files_of(system: System, answers: Sequence[Settings] | None, account: Account) -> list[list[str]]:
    """Return the files where sshd looks for keys, those of each connection that has any."""
    configured = [settings.one("authorizedkeysfile") for settings in answers or ()] or [await _written(system, account)]
    used = [words.split() for words in dict.fromkeys(configured) if words.lower() != "none"]
    return [[_expand(word, account) for word in words] for words in used]


async def _written(system: System, account: Account) -> str:
    """Return where the configuration says that keys are, for a system whose sshd cannot be asked: a tree."""
    if not any("authorizedkeysfile" in text.lower() for text in read_config(system).values()):
        return DEFAULT_FILES
    from minprov.formats.sshd_config import Connection, find_line, read_lines

    lines = read_lines(lambda pattern: files_matching(system, pattern))
    connection = Connection(user=account.name, **OUTSIDE)
    line = find_line(lines, "authorizedkeysfile", connection, await groups_of_user(system, account.name))
    return " ".join(line.arguments) if line else DEFAULT_FILES


def _expand(path: str, account: Account) -> str:
    """Return a path of AuthorizedKeysFile with its tokens expanded, sshd_config(5), TOKENS."""
    values = {"%": "%", "h": account.home, "u": account.name, "U": str(account.uid)}
    pieces = path.split("%")
    expanded = pieces.pop(0)
    while pieces:
        piece = pieces.pop(0)
        if not piece and pieces:  # two in a row
            expanded += "%" + pieces.pop(0)
        else:
            expanded += values.get(piece[:1], "") + piece[1:]
    return os.path.normpath(expanded if expanded.startswith("/") else f"{account.home}/{expanded}")


def _read_as_sshd(system: System, account: Account, path: str) -> tuple[str, str]:
    """Return the contents, and what keeps sshd from using them if there is something.

    sshd reads as the user. Its StrictModes wants the file, and each directory up to the home directory or the root, to
    be the user's or root's, and no other to write to it: safe_path in OpenSSH's misc.c.
    """
    try:
        with _directory(system, account, path, create=False) as (directory, above):
            owner = account.uid if _is_below_home(path, account) else None
            contents = read_file(directory, os.path.basename(path), owner=owner, limit=MAX_SIZE)
            if contents is None:
                return "", "no file"
            file = os.stat(os.path.basename(path), dir_fd=directory, follow_symlinks=False)
            faults = [_fault(found, account) for found in (*above, os.fstat(directory), file)]
            if _is_below_home(path, account):
                above_all = _above(system, directory)
                faults += [NO_ENTRY for found in above_all if not _may(found, account, stat.S_IXOTH)]
            if not any(faults) and not _may(file, account, stat.S_IROTH):
                faults.append("the user may not read it")
    except (FileNotFoundError, NotADirectoryError) as error:
        if isinstance(error, NotADirectoryError):
            raise file_error(error, path) from error
        return "", "no file"
    except PermissionError:
        raise
    except OSError as error:
        raise file_error(error, path) from error
    return contents.decode(errors="surrogateescape"), next((fault for fault in faults if fault), "")


def _fault(found: os.stat_result, account: Account) -> str:
    if found.st_uid not in (0, account.uid):
        return f"part of the path belongs to uid {found.st_uid}"
    if stat.S_IMODE(found.st_mode) & 0o022:
        return "others may write to it or to a directory above it"
    if stat.S_ISDIR(found.st_mode) and not _may(found, account, stat.S_IXOTH):
        return NO_ENTRY
    return ""


def _may(found: os.stat_result, account: Account, bit: int) -> bool:
    """Tell whether the user has a permission, given by its bit for others."""
    if found.st_uid == account.uid:
        return bool(found.st_mode & bit << 6)
    if found.st_mode & (bit | bit << 3) in (0, bit | bit << 3):  # it is all one
        return bool(found.st_mode & bit)
    is_member = found.st_gid in os.getgrouplist(account.name, account.gid)
    return bool(found.st_mode & (bit << 3 if is_member else bit))


async def _write(system: System, account: Account, path: str, keys: Sequence[str]) -> None:
    try:
        with _directory(system, account, path, create=True) as (directory, above):
            name = os.path.basename(path)
            own = _is_below_home(path, account)
            if not own:
                directories = [*above, os.fstat(directory)]
                # Before anything is kept that somebody else may have put there.
                if fault := next((fault for found in directories if (fault := _fault(found, account))), ""):
                    raise ProvisioningError(Reason.KEYS_NOT_ACCEPTED, username=account.name, path=path, detail=fault)
                own = any(found.st_uid == account.uid for found in directories)
            contents = read_file(directory, name, owner=account.uid if own else None, limit=MAX_SIZE)
            existing = (contents or b"").decode(errors="surrogateescape")
            text = merge_keys(existing, keys)
            await system.note(Effect(KEYS, path, uid=account.uid, names=line_digests(text[len(existing) :])))
            merged = text.encode(errors="surrogateescape")
            owner = (account.uid, account.gid) if own else (0, 0)
            await replace_file(directory, name, merged, mode=FILE_MODE if own else ROOTS_FILE_MODE, owner=owner)
    except OSError as error:
        raise file_error(error, path) from error
    await system.restore_label(os.path.dirname(path), path)


async def remove_lines(system: System, path: str, uid: int | None, digests: frozenset[str]) -> None:
    """Remove from a file the lines that have these digests; the others stay as they are."""
    name = find_name(system.read_text(PASSWD), uid) if uid is not None else None
    account = find_user(system, name) if name else None
    if account is None:
        return
    try:
        with _directory(system, account, path, create=False) as (directory, _):
            name = os.path.basename(path)
            owner_of_file = account.uid if _is_below_home(path, account) else None
            contents = read_file(directory, name, owner=owner_of_file, limit=MAX_SIZE) or b""
            lines = contents.splitlines(keepends=True)
            kept = b"".join(line for line in lines if digest(line.rstrip(b"\n")) not in digests)
            if kept != contents:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                owner, mode = (found.st_uid, found.st_gid), stat.S_IMODE(found.st_mode)
                await replace_file(directory, name, kept, mode=mode, owner=owner)
    except FileNotFoundError:
        return
    except OSError as error:
        raise file_error(error, path) from error
    await system.restore_label(path)


def line_digests(text: str) -> tuple[str, ...]:
    """Return what the journal says of lines of keys."""
    return tuple(digest(line.encode(errors="surrogateescape")) for line in text.split("\n") if line)


def _is_below_home(path: str, account: Account) -> bool:
    return path.startswith(f"{os.path.normpath(account.home)}/")


@contextmanager
def _directory(
    system: System, account: Account, path: str, *, create: bool
) -> Iterator[tuple[int, list[os.stat_result]]]:
    """Open the directory of a file, and tell what sshd looks at above it; below the home directory no link is followed.

    Elsewhere it is root's, whose links are.
    """
    parent = os.path.dirname(path)
    if not _is_below_home(path, account):
        with system.directory(parent, make=0o755 if create else None) as directory:
            yield directory, list(_above(system, directory))
        return
    with opened_below_home(system, account, parent, mode=DIRECTORY_MODE if create else None) as opened:
        yield opened


def _above(system: System, directory: int) -> Iterator[os.stat_result]:
    """Yield what stands above an open directory, up to the system's root; a tree's own is passed over.

    While a tree is made its root may have another mode than it will have.
    """
    root, found, path = os.stat(system.root), os.fstat(directory), "."
    while not os.path.samestat(found, root):
        path += "/.."
        above = os.stat(path, dir_fd=directory)
        if os.path.samestat(above, found) or (not system.live and os.path.samestat(above, root)):
            return
        found = above
        yield found
