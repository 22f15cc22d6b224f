"""Paths of a system that may be a tree."""

from __future__ import annotations

import errno
import os

MAX_LINKS = 40  # as the kernel's own limit, MAXSYMLINKS


def resolve_beneath(root: str, path: str) -> str:
    """Resolve links as if `root` were the root directory; what does not exist is taken as it is written.

    Raises OSError with ELOOP for a loop of links.
    """
    if root == "/":
        return path
    top = resolved = root.rstrip("/")
    waiting = path.split("/")[::-1]
    links = 0
    while waiting:
        component = waiting.pop()
        if component in ("", "."):
            continue
        if component == "..":
            if resolved != top:
                resolved = os.path.dirname(resolved)
            continue
        candidate = f"{resolved}/{component}"
        try:
            target = os.readlink(candidate)
        except OSError:  # not a link, or not there
            resolved = candidate
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            resolved = top
        waiting += target.split("/")[::-1]
    return resolved
