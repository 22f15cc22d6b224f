"""What a run changed in a machine's tree, in words that do not depend on the day, the salt or the machine."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from minprov.formats.sha_crypt import verify
from minprov.model import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .machine import Layer

MOST_LINES = 12
LONGEST_LINE = 800
# What account tools and PAM leave for themselves; it differs between their versions.
OTHERS = (
    "*/etc/*-",
    "*/etc/.pwd.lock",
    "*/etc/subuid",
    "*/etc/subgid",
    "*/etc/gshadow",
    "/run/utmp",
    "*/var/log/*",
    "*/var/lib/systemd*",
    "*/var/lib/lastlog*",
    # The program's own record of all the other changes: tests/properties/test_withdrawal.py.
    "*/manifest.json",
    # What hooks print once the run has ended.
    "*/hooks-after-ready.log",
    "*/hooks-failed.log",
)
# Different in every run: that they are there, whose they are and their mode is all there is to compare.
OF_THE_MOMENT = (
    *("*/report.json", "*/ssh/*host_*", "*/.kvp_pool_1"),
    *("*/custom-data.json", "*/certificates.json", "*/resource-disk.json", "*/follow-up.json", "*/hooks.json"),
)


class Entry(NamedTuple):
    """A file, directory or link: `contents` is a file's bytes or a link's target."""

    kind: str
    mode: int
    owner: tuple[int, int]
    contents: bytes = b""


Snapshot = dict[str, Entry]


def take_snapshot(layers: Iterable[Layer]) -> Snapshot:
    """Return all that is in the upper parts of the layers."""
    found = {}
    for layer in layers:
        for path in _walk(layer.upper):
            with suppress(OSError):  # somebody beside the program took it away, or put something else there
                found[layer.place.rstrip("/") + path[len(layer.upper) :]] = _look(path)
    return found


def find_changes(
    layers: Iterable[Layer], before: Snapshot, after: Snapshot, ignored: Iterable[str] = OTHERS
) -> dict[str, tuple[Entry | None, Entry]]:
    """Return what is different after, by path: the entry before, if there was one, and after."""
    changes: dict[str, tuple[Entry | None, Entry]] = {}
    for path, entry in after.items():
        old = before.get(path) or _look_below(path, layers)
        if old != entry and not any(fnmatch.fnmatchcase(path, pattern) for pattern in ignored):
            changes[path] = (old, entry)
    for path, entry in before.items():
        if path not in after:
            changes[path] = (entry, Entry("removed", 0, (0, 0)))
    return changes


def describe(path: str, old: Entry | None, new: Entry, password: Secret | None) -> list[str]:
    """Return an entry's kind, mode and owner, and the lines in which it differs from the old one."""
    if new.kind in ("removed", "other"):
        return [new.kind]
    head = f"{new.kind} {new.mode:04o} {new.owner[0]}:{new.owner[1]}"
    if new.kind == "link":
        return [f"{head} -> {new.contents.decode()}"]
    if new.kind == "directory" or any(fnmatch.fnmatchcase(path, pattern) for pattern in OF_THE_MOMENT):
        return [head]
    try:
        before, after = [(entry.contents if entry else b"").decode().split("\n") for entry in (old, new)]
    except UnicodeDecodeError:
        return [head, f"{len(new.contents)} bytes {_hash(new.contents)}"]
    if path.endswith(("/etc/shadow", "/etc/passwd")):
        dated = path.endswith("/etc/shadow")
        before, after = [[_settle_entry(line, password, dated=dated) for line in part] for part in (before, after)]
    differences = [line[0] + line[2:] for line in difflib.ndiff(before, after) if line[0] in "+-" and len(line) > 2]
    if len(differences) > MOST_LINES:
        rest = "\n".join(differences[MOST_LINES:])
        differences[MOST_LINES:] = [f"… {len(differences) - MOST_LINES} lines {_hash(rest.encode())}"]
    return [
        head,
        *(line if len(line) <= LONGEST_LINE else f"{line[:40]}… {_hash(line.encode())}" for line in differences),
    ]


def _hash(contents: bytes) -> str:
    return f"with the hash {hashlib.sha256(contents).hexdigest()[:16]}"


def _settle_entry(line: str, password: Secret | None, *, dated: bool) -> str:
    fields = line.split(":")
    if len(fields) < 3:
        return line
    if fields[1].startswith("$"):
        method = fields[1].split("$")[1]
        right = password is not None and method in ("5", "6") and verify(password, fields[1])
        fields[1] = f"<${method}$ hash of {'the' if right else 'another'} password>"
    if dated and fields[2]:
        fields[2] = "<day>"
    return ":".join(fields)


def _walk(top: str) -> Iterator[str]:
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(top):
            yield entry.path
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)


def _look(path: str) -> Entry:
    found = os.lstat(path)
    mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
    if stat.S_ISREG(found.st_mode):
        # Not to wait for a FIFO that somebody has put there since.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            return Entry("file", mode, owner, stream.read())
    if stat.S_ISLNK(found.st_mode):
        return Entry("link", mode, owner, os.readlink(path).encode())
    if stat.S_ISDIR(found.st_mode):
        return Entry("directory", mode, owner)
    # overlayfs marks what was removed by a character device without a number.
    return Entry("removed" if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0 else "other", mode, owner)


def _look_below(path: str, layers: Iterable[Layer]) -> Entry | None:
    """Return the entry that a layer's lower parts have at a path."""
    for layer in sorted(layers, key=lambda layer: -len(layer.place)):
        if path.startswith(layer.place):
            inside = path[len(layer.place.rstrip("/")) :]
            for lower in layer.lowers:
                if os.path.lexists(lower + inside):
                    found = _look(lower + inside)
                    return None if found.kind == "removed" else found
                if any(_is_opaque(lower + str(parent)) for parent in PurePosixPath(inside).parents):
                    return None
            return None
    return None


def _is_opaque(path: str) -> bool:
    """Tell whether overlayfs shows nothing of the layers below in a directory, as in one that was made anew."""
    try:
        return os.getxattr(path, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False
