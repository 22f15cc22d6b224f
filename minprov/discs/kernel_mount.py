"""Let the kernel read a disc that the readers refuse: a private, read-only mount in a short-lived process.

The process has a mount namespace of its own: nobody else sees the mount, and it ends with the process, however that
ends. Like any read, this may take as long as the device likes. The path is rare and may cost what it costs, so nothing
imports this module before it is needed. It must not know what the files mean.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.machine.child_process import in_child_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# linux/sched.h, linux/mount.h
CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 1 << 14, 1 << 18


def read_files(device: str, file_system: str, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Return those files of the root directory that `limits` names, none longer than its limit.

    Raises:
        ProvisioningError: MEDIA_UNREADABLE, with the reason why the kernel did not mount the device or read the files.

    """
    try:
        return asyncio.run(in_child_process(lambda: _mount_and_read(device, file_system, limits)))
    except OSError as error:
        detail = error.strerror or str(error)
        raise ProvisioningError(Reason.MEDIA_UNREADABLE, path=device, detail=detail) from error


def _mount_and_read(device: str, file_system: str, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Be the child: mount the device where nobody else sees it, and read."""
    with _private_mount(os.path.realpath(device), file_system) as root:
        contents = {name: _read(root, name, limit) for name, limit in limits.items()}
    return {name: data for name, data in contents.items() if data is not None}


@contextmanager
def _private_mount(device: str, file_system: str) -> Iterator[int]:
    """Mount for as long as the context lasts, and give the root directory: afterwards nobody holds the device."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
    mount_point = os.path.dirname(device)  # any directory will do, and this one exists
    place = os.fsencode(mount_point)

    def check(status: int) -> None:
        if status:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    check(libc.unshare(CLONE_NEWNS))
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    check(libc.mount(os.fsencode(device), place, file_system.encode(), flags, None))
    root = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield root
    finally:
        os.close(root)
        check(libc.umount2(place, 0))


def _read(root: int, name: str, limit: int) -> bytes | None:
    """Return a file's bytes, or None where there is no such file. A link, which may lead anywhere, is not followed."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=root)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, f"{name} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"{name} is larger than {limit} bytes")
    return data
