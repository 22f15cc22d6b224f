"""Let the kernel read a disc that the readers refuse: a private, read-only mount in a short-lived process.

The process has a mount namespace of its own: nobody else sees the mount, and it ends with the process, however that
ends. The parent gets the files through a pipe; like any read, this may take as long as the device likes. The path is
rare and may cost what it costs, so nothing imports this module before it is needed. It must not know what the files
mean.
"""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
from struct import Struct
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

# linux/sched.h, linux/mount.h
CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 1 << 14, 1 << 18

_LENGTH = Struct("<q")  # before each file's bytes; less than nothing where there is no such file
ABSENT = -1


def read_files(device: str, file_system: str, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Return those files of the root directory that `limits` names, none longer than its limit.

    Raises:
        ProvisioningError: MEDIA_UNREADABLE, with the reason why the kernel did not mount the device or read the files.

    """
    argv = [sys.executable, "-S", "-P", "-m", "minprov.discs.kernel_mount", device, file_system]
    argv += [f"{limit}:{name}" for name, limit in limits.items()]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        child = subprocess.run(argv, env=environment, capture_output=True, check=False)
    except OSError as error:
        raise ProvisioningError(Reason.MEDIA_UNREADABLE, path=device, detail=error.strerror) from error
    if child.returncode:
        answer = child.stderr.decode(errors="replace").strip() or f"status {child.returncode}"
        raise ProvisioningError(Reason.MEDIA_UNREADABLE, path=device, detail=answer)
    files = {}
    output = child.stdout
    for name in limits:
        (length,) = _LENGTH.unpack_from(output)
        output = output[_LENGTH.size :]
        if length != ABSENT:
            files[name], output = output[:length], output[length:]
    return files


def main(device: str, file_system: str, *wanted: str) -> None:
    """Mount a device where nobody else sees it, and write the wanted files to standard output."""
    device = os.path.realpath(device)
    mount_point = os.path.dirname(device)  # any directory will do, and this one exists
    try:
        _mount_privately(device, mount_point, file_system)
        root = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
        for limit, _, name in (argument.partition(":") for argument in wanted):
            data = _read(root, name, int(limit))
            sys.stdout.buffer.write(_LENGTH.pack(ABSENT) if data is None else _LENGTH.pack(len(data)) + data)
    except OSError as error:
        sys.exit(error.strerror)


def _mount_privately(device: str, mount_point: str, file_system: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)

    def check(status: int) -> None:
        if status:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    check(libc.unshare(CLONE_NEWNS))
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    check(libc.mount(os.fsencode(device), os.fsencode(mount_point), file_system.encode(), flags, None))


def _read(root: int, name: str, limit: int) -> bytes | None:
    """Return a file's bytes, or None where there is no such file. A link, which may lead anywhere, is not followed."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=root)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        sys.exit(f"{name} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        sys.exit(f"{name} is larger than {limit} bytes")
    return data


if __name__ == "__main__":
    main(*sys.argv[1:])
