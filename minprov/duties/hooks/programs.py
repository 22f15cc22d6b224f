"""Which programs of a stage are run: the rules of run-parts(8), and that nobody but root can have put them there.

Where every directory from the root on is root's and not writable by others, and no link is followed, what was looked at
is what will be run: nobody else can replace it.
"""

from __future__ import annotations

import os
import re
import stat

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason, excerpt

NAME = re.compile(r"[A-Za-z0-9_-]+")
"""run-parts(8) without options. So what package managers and editors leave, such as ``.dpkg-old``, is not run."""
OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Program(NamedTuple):
    """A file of a stage's directory, and why it is not run, if it is not."""

    name: str
    path: str
    passed_over: str | None = None
    """It is none that would be run anywhere."""
    fault: str | None = None
    """It would be run, but for this."""


def find_programs(directory: str, stage: str, root: str = "") -> list[Program]:
    """Return what is in a stage's directory, in order of names; without that, nothing.

    Raises:
        ProvisioningError: HOOK_REFUSED, where the directory cannot be trusted, or that of all stages is not there;
            NOT_PERMITTED.

    """
    place = f"{os.path.normpath(directory)}/{stage}.d"
    try:
        _check(directory, root)
        try:
            _check(place, root)
        except FileNotFoundError:
            return []
        names = sorted(os.listdir(root + place))
        return [_judge(name, f"{root}{place}/{name}") for name in names]
    except OSError as error:
        reason = Reason.NOT_PERMITTED if isinstance(error, PermissionError) else Reason.HOOK_REFUSED
        raise ProvisioningError(reason, path=error.filename.removeprefix(root), detail=error.strerror) from error


def _check(directory: str, root: str) -> None:
    """Raise OSError or HOOK_REFUSED unless it is a directory that root alone can change, as is each above it."""
    path = ""
    for part in ("", *filter(None, os.path.normpath(directory).split("/"))):
        path = f"{path}/{part}" if part else path
        found = os.lstat(f"{root}{path}" or "/")
        if fault := _find_fault(found) or (None if stat.S_ISDIR(found.st_mode) else "is no directory"):
            raise ProvisioningError(Reason.HOOK_REFUSED, path=path or "/", detail=fault)


def _judge(name: str, path: str) -> Program:
    if not NAME.fullmatch(name):
        return Program(excerpt(name), path, passed_over="its name is not of letters, digits, _ and - alone")
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return Program(name, path, fault=_find_fault(found))
    if not stat.S_ISREG(found.st_mode):
        return Program(name, path, passed_over="no regular file")
    if not found.st_mode & stat.S_IXUSR:
        return Program(name, path, passed_over="not executable")
    return Program(name, path, fault=_find_fault(found))


def _find_fault(found: os.stat_result) -> str | None:
    """Tell why somebody else than root may have put it there, or may change it."""
    if stat.S_ISLNK(found.st_mode):
        return "is a link"
    if found.st_uid != 0:
        return f"belongs to uid {found.st_uid}, not to root"
    return "is writable by others" if found.st_mode & OTHERS else None
