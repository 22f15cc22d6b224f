"""Whether what is written to a directory is there after the next boot."""

from __future__ import annotations

import os

MOUNTS = "/proc/self/mountinfo"
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
