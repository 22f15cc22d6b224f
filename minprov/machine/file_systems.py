"""What a file system does with what is on it: whether it keeps it, and whether it heeds setuid bits."""

from __future__ import annotations

import os
from contextlib import suppress

MOUNTS = "/proc/self/mountinfo"
MOUNTS_OF_ALL = "/proc/1/mountinfo"
VOLATILE = frozenset({"tmpfs", "ramfs"})


def volatile_file_system(path: str) -> str | None:
    """Return the kind of the file system that has the path, or would have it, if that one lives in memory."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:  # proc_pid_mountinfo(5)
            mount, _, file_system = line.partition(" - ")
            kind = file_system.split(" ")[0]
            if mount.split(" ")[2] == number:
                return kind if kind in VOLATILE else None
    return None


def is_nosuid(path: str) -> bool:
    """Tell whether setuid bits have no effect there for whoever logs in.

    For a unit with NoNewPrivileges= systemd mounts all file systems nosuid, and for it alone: namespace.c,
    mount_nosuid. So it is the first process's mounts that count.
    """
    if not os.statvfs(path).f_flag & os.ST_NOSUID:
        return False
    from minprov.formats.mounts import parse_mountinfo

    place = os.path.realpath(path)
    with suppress(PermissionError), open(MOUNTS_OF_ALL, encoding="utf-8", errors="surrogateescape") as stream:
        mounts = parse_mountinfo(stream.read())
        above = [mount for mount in mounts if os.path.commonpath((mount.path, place)) == mount.path]
        # Of mounts over each other the last one counts.
        return "nosuid" in max(reversed(above), key=lambda mount: len(mount.path)).options
    return False
