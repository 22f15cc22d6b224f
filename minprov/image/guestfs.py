"""libguestfs, which reads a disk in a small virtual machine: without root, and through LVM and md as well.

Its program guestmount shows the image's system as a directory (FUSE). It finds the system and its file systems itself.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.image.progress import StatusLine
from minprov.limits import GUESTFS_LIMIT
from minprov.machine.tools import PATH, find_tool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.disk_file import DiskFile

PROGRAM = "guestmount"


def is_installed() -> bool:
    """Tell whether guestmount is there."""
    return find_tool(PROGRAM) is not None


@contextmanager
def guest_tree(disk: DiskFile, target: str) -> Iterator[None]:
    """Show the system on a disk at the directory `target`.

    Raises:
        ProvisioningError: IMAGE_UNREADABLE, with what guestmount said.

    """
    # raw: a fixed VHD's footer stands behind its last partition.
    driver = "raw" if disk.is_plain else disk.format.driver
    argv = [PROGRAM, "--ro", "--inspector", f"--format={driver}", "--add", os.path.abspath(disk.path), target]
    # Its own backend: libvirt would be asked for a machine otherwise, and may be another one's.
    environment = {"PATH": PATH, "LANG": "C.UTF-8", "LIBGUESTFS_BACKEND": "direct", "HOME": os.environ.get("HOME", "/")}
    line = StatusLine()
    line.show(f"{PROGRAM} starts a small machine, in {GUESTFS_LIMIT:.0f} s at most")
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=GUESTFS_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProvisioningError(Reason.IMAGE_UNREADABLE, image=disk.path, detail=f"{PROGRAM}: {error}") from error
    finally:
        line.clear()
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().replace("\n", " / ")[-400:]
        raise ProvisioningError(Reason.IMAGE_UNREADABLE, image=disk.path, tool=PROGRAM, detail=words)
    try:
        yield
    finally:
        with suppress(OSError, subprocess.TimeoutExpired):
            unmount = [find_tool("guestunmount") or "guestunmount", target]
            subprocess.run(unmount, env=environment, capture_output=True, timeout=GUESTFS_LIMIT, check=False)
