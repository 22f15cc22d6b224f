"""Root's password: locked where that is asked for, last of all, when the administrator can log in and become root.

The field alone is rewritten, under the lock of lckpwdf(3), which account tools and PAM respect, and by rename. The
tools that could do it, passwd(1) and usermod(8), also set the date of the last change, by which audits go. The account
stays open: of an expired root no cron job runs, since PAM looks at its age.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from minprov.actions import LockRootPassword
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import find_password_field, has_empty_password, replace_password_field
from minprov.limits import PASSWORD_LOCK_LIMIT, PASSWORD_LOCK_POLL
from minprov.machine.blocking import in_thread
from minprov.machine.files import file_error, replace_file
from minprov.machine.manifest import LOCKED, Effect
from minprov.machine.system import System
from minprov.properties.inspection import Inspection
from minprov.properties.name_service import PASSWD

ROOT = "root"
SHADOW = "/etc/shadow"
LOCK = "/etc/.pwd.lock"
FIELD = "*"  # no hash, so no password matches; unlike "!" it keeps no key out, whatever PAM is asked


def is_open(system: System) -> bool:
    """Tell whether anybody can become root without a password; without privileges it cannot be seen."""
    try:
        return has_empty_password(system.read_text(PASSWD), system.read_text(SHADOW), ROOT)
    except ProvisioningError:
        return False


async def inspect(system: System, action: LockRootPassword) -> Inspection:
    """Look at the field."""
    if action.administrator == ROOT:
        return Inspection(True, "root is the VM's user", verified=False)
    try:
        field = find_password_field(system.read_text(_database(system)), ROOT)
    except ProvisioningError as error:
        if error.reason is not Reason.NOT_PERMITTED:
            raise
        return Inspection(None, "cannot be seen without privileges")
    if field is None:
        return Inspection(True, "no entry")
    if field.startswith(("!", "*")):
        return Inspection(True, "locked")
    return Inspection(False, "an empty password" if not field else "a password")


async def converge(system: System, action: LockRootPassword) -> None:
    """Replace the field, and nothing else of the database."""
    del action
    database = _database(system)
    directory, name = os.path.split(database)
    await system.note(Effect(LOCKED, ROOT))
    try:
        found = os.stat(system.path(database))
        opened = await in_thread(_lock, system.path(LOCK))
        try:
            text = replace_password_field(system.read_text(database), ROOT, FIELD)
            contents = text.encode(errors="surrogateescape")
            mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
            with system.directory(directory) as etc:
                await replace_file(etc, name, contents, mode=mode, owner=owner)
        finally:
            os.close(opened)
    except OSError as error:
        raise file_error(error, database) from error
    await system.restore_label(database)


def _database(system: System) -> str:
    """Return where the field is: passwd(5) has it itself, or ``x`` where shadow(5) has it."""
    return SHADOW if find_password_field(system.read_text(PASSWD), ROOT) == "x" else PASSWD


def _lock(path: str) -> int:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    deadline = time.monotonic() + PASSWORD_LOCK_LIMIT
    while True:
        try:
            fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                time.sleep(PASSWORD_LOCK_POLL)
                continue
            os.close(opened)
            detail = "an account tool holds it"
            raise ProvisioningError(Reason.WRITE_FAILED, path=LOCK, detail=detail) from error
        return opened
