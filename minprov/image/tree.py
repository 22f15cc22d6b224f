"""A system below a root directory, read and never written: this machine's own, or that of a tree made elsewhere.

A tree may come from anywhere. Links are followed as the system in it would follow them, and never lead out of it;
nothing but regular files is opened, so that no FIFO is waited for and no device is touched; what is read is bounded.
What is not there is None or empty; what is there and cannot be read is an error, which makes a check's answer unknown.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

from minprov.errors import ProvisioningError, Reason
from minprov.machine.paths import resolve_beneath

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TEXT = 4 << 20
"""Bytes of a configuration file. Lists of modules of large kernels have some 600 KiB."""
MAX_NAMES = 20_000
"""Names in one directory, and files that one walk goes over."""
_DENIED = (PermissionError,)
_ABSENT = (FileNotFoundError, NotADirectoryError)


class Tree:
    """A read-only view of the system whose root directory is `root`."""

    def __init__(self, root: str = "/") -> None:
        self.root = os.path.realpath(root)
        self._directories: dict[str, str] = {}

    @property
    def live(self) -> bool:
        """Tell whether this is the running system."""
        return self.root == "/"

    # -- what is there -------------------------------------------------------------------------------------------------

    def stat(self, path: str) -> os.stat_result | None:
        """Return what a path leads to, links followed; None if that is not there."""
        return self._stat(self._resolved(path), path)

    def exists(self, path: str) -> bool:
        """Tell whether a path leads to something."""
        return self.stat(path) is not None

    def is_file(self, path: str) -> bool:
        """Tell whether a path leads to a regular file."""
        found = self.stat(path)
        return found is not None and stat.S_ISREG(found.st_mode)

    def is_directory(self, path: str) -> bool:
        """Tell whether a path leads to a directory."""
        found = self.stat(path)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def link(self, path: str) -> str | None:
        """Return where the link at `path` points, as it is written; None if it is no link."""
        directory, _, name = path.rpartition("/")
        try:
            return os.readlink(os.path.join(self._directory(directory), name))
        except OSError:
            return None

    def target(self, path: str) -> str:
        """Return the path within the tree that `path` leads to, links followed."""
        resolved = self._resolved(path)
        return resolved if self.live else resolved.removeprefix(self.root.rstrip("/")) or "/"

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory in order; none if there is no such directory."""
        try:
            with os.scandir(self._resolved(directory)) as entries:
                names = [entry.name for entry, _ in zip(entries, range(MAX_NAMES), strict=False)]
        except _ABSENT:
            return []
        except OSError as error:
            raise _unreadable(directory, error) from error
        return sorted(names)

    def glob(self, *patterns: str) -> list[str]:
        """Return the paths that match one of the patterns, each pattern's in order; ``*`` is part of one name."""
        found: list[str] = []
        for pattern in patterns:
            paths = [""]
            for part in pattern.strip("/").split("/"):
                paths = list(islice(self._matching(paths, part), MAX_NAMES))
            found += [path for path in paths if self.exists(path) or self.link(path) is not None]
        return list(dict.fromkeys(found))

    def _matching(self, directories: list[str], part: str) -> Iterator[str]:
        """Yield the paths in directories whose last component matches one part of a pattern."""
        for directory in directories:
            if not any(sign in part for sign in "*?["):
                yield f"{directory}/{part}"
                continue
            for name in self.names(directory or "/"):
                if fnmatch.fnmatchcase(name, part) and not (name.startswith(".") and part[0] != "."):
                    yield f"{directory}/{name}"

    def walk(self, directory: str) -> Iterator[str]:
        """Yield the paths of the files below a directory; links are not followed."""
        waiting, count = [directory.rstrip("/")], 0
        while waiting:
            here = waiting.pop()
            for name in self.names(here or "/"):
                count += 1
                if count > MAX_NAMES:
                    return
                path = f"{here}/{name}"
                found = None if self.link(path) is not None else self.stat(path)
                if found is None:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(path)
                elif stat.S_ISREG(found.st_mode):
                    yield path

    # -- what is in it -------------------------------------------------------------------------------------------------

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open a regular file; what fails while it is read, on a damaged file system or by its contents, names it.

        Raises:
            ProvisioningError: IMAGE_UNREADABLE if it is none, or not there; NOT_PERMITTED.

        """
        resolved = self._resolved(path)
        try:
            # Looked at first: that a device is opened can have an effect already.
            if not stat.S_ISREG(os.stat(resolved, follow_symlinks=False).st_mode):
                raise ProvisioningError(Reason.IMAGE_UNREADABLE, path=path, detail="not a regular file")
            descriptor = os.open(resolved, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
        except OSError as error:
            raise _unreadable(path, error) from error
        # Without a buffer: a program that is given the file begins where it was put.
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ProvisioningError(Reason.IMAGE_UNREADABLE, path=path, detail="not a regular file")
            try:
                yield file
            except OSError as error:
                raise _unreadable(path, error) from error
            except ProvisioningError as error:
                raise ProvisioningError(error.reason, **{"path": path, **error.data}) from error

    def read(self, path: str, limit: int = MAX_TEXT) -> bytes | None:
        """Return a regular file's contents; None if there is none.

        Raises:
            ProvisioningError: NOT_PERMITTED; IMAGE_UNREADABLE, also for one of more than `limit` bytes.

        """
        if not self.is_file(path):
            return None
        with self.open(path) as file:
            contents = file.read(limit + 1)
        if len(contents) > limit:
            raise ProvisioningError(Reason.IMAGE_UNREADABLE, path=path, detail=f"larger than {limit} bytes")
        return contents

    def text(self, path: str) -> str | None:
        """Return a regular file as text, None if there is none, as `read` does."""
        contents = self.read(path)
        return None if contents is None else contents.decode(errors="replace")

    def lines(self, path: str) -> list[tuple[int, str]]:
        """Return the lines of a text file that are neither empty nor comments, each with its number."""
        text = self.text(path) or ""
        numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
        return [(number, line) for number, line in numbered if line and not line.startswith(("#", ";"))]

    # -- paths ---------------------------------------------------------------------------------------------------------

    def _resolved(self, path: str) -> str:
        """Return where a path of the tree is on this machine, all links followed."""
        directory, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            return self._directory(path)
        candidate = os.path.join(self._directory(directory), name)
        if not os.path.islink(candidate):
            return candidate
        return self._directory(path)

    def _directory(self, path: str) -> str:
        if path not in self._directories:
            try:
                resolved = os.path.realpath(path or "/") if self.live else resolve_beneath(self.root, path)
            except OSError as error:
                raise _unreadable(path, error) from error
            self._directories[path] = resolved
        return self._directories[path]

    def _stat(self, resolved: str, path: str) -> os.stat_result | None:
        try:
            return os.stat(resolved, follow_symlinks=False)
        except _ABSENT:
            return None
        except OSError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> ProvisioningError:
    reason = Reason.NOT_PERMITTED if isinstance(error, _DENIED) else Reason.IMAGE_UNREADABLE
    return ProvisioningError(reason, path=path, detail=error.strerror)
