"""Mount what an image has for this process alone: read-only, without its journal, without device files or programs.

The process gets a mount namespace of its own, so that nothing is left when it ends, however it does. Loop devices are
made by mount(8) and go with their mounts.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.limits import PARTITION_LIMIT
from minprov.machine.tools import PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

# linux/sched.h, linux/mount.h, umount(2)
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18
MNT_DETACH = 2

KINDS = {
    "ext4": ("norecovery",),
    "xfs": ("norecovery", "nouuid"),
    "btrfs": ("norecovery",),
    "squashfs": (),
    "erofs": (),
    "vfat": (),
}
"""File systems that are mounted, each with what keeps its journal from being replayed: the image stays as it is."""
_OPTIONS = ("ro", "loop", "nodev", "nosuid", "noexec")


class Mounts:
    """The mounts of one image, the last one first to go."""

    def __init__(self) -> None:
        """Enter a mount namespace that nobody else sees."""
        self._targets: list[str] = []
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mount.argtypes = (*(ctypes.c_char_p,) * 3, ctypes.c_ulong, ctypes.c_char_p)
        self._call(self._libc.unshare(CLONE_NEWNS), "a mount namespace")
        self._call(self._libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "a mount namespace")

    def mount(self, image: str, place: tuple[int, int], kind: str, target: str, options: Sequence[str] = ()) -> None:
        """Mount the file system at (offset, size) of a plain disk on a directory.

        Raises:
            ProvisioningError: IMAGE_UNREADABLE, with what mount(8) said.

        """
        offset, size = place
        words = [*_OPTIONS, f"offset={offset}", f"sizelimit={size}", *KINDS[kind], *options]
        argv = ["mount", "-n", "-t", kind, "-o", ",".join(words), "--", image, target]
        environment = {"PATH": PATH, "LANG": "C.UTF-8"}
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=environment,
                timeout=PARTITION_LIMIT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unreadable(f"mount: {error}") from error
        if done.returncode:
            lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            raise _unreadable(lines[0].removeprefix("mount: ")[:200] if lines else "mount failed")
        self._targets.append(target)

    def bind(self, directory: str, target: str) -> None:
        """Let a directory be seen at another one as well."""
        self._call(self._libc.mount(os.fsencode(directory), os.fsencode(target), None, MS_BIND | MS_REC, None), target)
        self._targets.append(target)

    def unmount(self, target: str) -> None:
        """Take the last mount on a directory away."""
        self._libc.umount2(os.fsencode(target), MNT_DETACH)
        self._targets.remove(target)

    def close(self) -> None:
        """Take all mounts away."""
        for target in self._targets[::-1]:
            self.unmount(target)

    def _call(self, status: int, what: str) -> None:
        if status:
            raise _unreadable(f"{what}: {os.strerror(ctypes.get_errno())}")


def _unreadable(detail: str) -> ProvisioningError:
    return ProvisioningError(Reason.IMAGE_UNREADABLE, detail=detail)
