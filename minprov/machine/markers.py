"""What earlier runs left: three facts for each VM id, and the last report.

    DIR/applied/<uuid>     every required property was applied and read back
    DIR/ready/<uuid>       the platform accepted the Ready report, and nothing is left to do
    DIR/pool/<uuid>        the platform's pool accepted a Ready report: the VM waits for its owner
    DIR/report.json        the last run's report

A fact is an empty file, so it is there or it is not. It is named by the machine's UUID, so that a captured or cloned
image, whose VM has another one, provisions again. No link is followed below DIR, since in a tree it may lead out.
Imports nothing but `os`, as `identity` does and for its reason.
"""

from __future__ import annotations

import os

from minprov.machine.identity import swap_byte_order

DEFAULT_DIRECTORY = "/var/lib/minprov"
UNTRUSTED = "untrusted"
APPLIED, READY, POOL = "applied", "ready", "pool"
REPORT = "report.json"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def holds(directory: str, fact: str, uuid: str) -> bool:
    """Tell whether the fact was recorded for this VM, in either byte order: a kernel update may change the one shown.

    Generation 1 VMs have shown both, see https://bugs.launchpad.net/cloud-init/+bug/1835584.
    """
    if not is_trusted(directory):
        return False
    try:
        parent = os.open(f"{directory}/{fact}", DIRECTORY)
    except OSError:
        return False
    try:
        return any(_is_there(parent, name) for name in (uuid, swap_byte_order(uuid)))
    finally:
        os.close(parent)


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def is_empty(directory: str) -> bool:
    """Tell whether no VM at all was ever provisioned from this image."""
    return not (is_trusted(directory) and os.path.exists(f"{directory}/{APPLIED}"))


def is_trusted(directory: str) -> bool:
    """Tell whether nobody but root, or who runs this, can have put anything there."""
    try:
        found = os.stat(directory)
    except OSError:
        return False
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022


def distrust(directory: str) -> None:
    """Make a directory root's alone, and set aside what others can have put there; raises OSError.

    The directory itself stays in its place, since it may be where a file system is mounted.
    """
    _set_aside(directory)  # first, lest after a kill it looked as if it were root's
    os.chown(directory, os.geteuid(), os.getegid())
    os.chmod(directory, 0o700)
    _set_aside(directory)


def _set_aside(directory: str) -> None:
    entries = [name for name in os.listdir(directory) if not name.startswith(UNTRUSTED)]
    if not entries:
        return
    number = 0
    while os.path.lexists(aside := f"{directory}/{UNTRUSTED}{number or ''}"):
        number += 1
    os.mkdir(aside, 0o700)
    for name in entries:
        os.rename(f"{directory}/{name}", f"{aside}/{name}")


def record(directory: str, fact: str, uuid: str) -> None:
    """Record the fact durably; raises OSError."""
    os.makedirs(f"{directory}/{fact}", 0o700, exist_ok=True)
    for path, name in ((f"{directory}/{fact}", uuid), (directory, None)):
        parent = os.open(path, DIRECTORY)
        try:
            if name is not None:
                file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
                os.fsync(file)
                os.close(file)
            os.fsync(parent)
        finally:
            os.close(parent)
