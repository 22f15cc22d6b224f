"""Files read and replaced as a whole, and directories made, durably; by open directories where others may write.

A file is written beside its place with its final owner and mode, synced, then renamed. Whoever looks, and whenever the
power goes, sees the old file or the new one.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from minprov.errors import ProvisioningError, Reason
from minprov.machine.blocking import in_thread

MAX_FILE_SIZE = 4 << 20
"""More than any file of a system that is read here has; what is read in part must not be written back."""
READ_SIZE = 1 << 16


def file_error(error: OSError, path: str) -> ProvisioningError:
    """Translate an operating system error on a file of the provisioned system."""
    reason = Reason.NOT_PERMITTED if error.errno in (errno.EPERM, errno.EACCES) else Reason.WRITE_FAILED
    return ProvisioningError(reason, path=path, detail=error.strerror)


def read_file(
    directory: int | None,
    name: str,
    *,
    follow: bool = False,
    owner: int | None = None,
    limit: int = MAX_FILE_SIZE,
) -> bytes | None:
    """Return the contents of a regular file in an open directory, or None when it is not there.

    With an owner, who may move files and make links there, it must be the owner's: another's may be a second name of
    what is kept elsewhere. Raises OSError: ELOOP for a link unless `follow`, EFBIG for a file above the limit.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        return None
    # Calls of `os`, not a file object: that makes three times as many, and each may cost a wait for other threads.
    try:
        if owner is not None and (uid := os.fstat(descriptor).st_uid) != owner:
            raise OSError(errno.EMLINK, f"It belongs to uid {uid}")
        contents = bytearray()
        while piece := os.read(descriptor, READ_SIZE):
            contents += piece
            if len(contents) > limit:
                raise OSError(errno.EFBIG, f"Larger than {limit} bytes")
        return bytes(contents)
    finally:
        os.close(descriptor)


def is_roots_alone(path: str) -> bool:
    """Tell whether a path leads to a regular file that nobody but root can have put there, or write to."""
    if not os.path.isabs(path):
        return False
    real = os.path.realpath(path)
    with suppress(OSError):
        if not stat.S_ISREG(os.lstat(real).st_mode):
            return False
        places = [real]
        while places[-1] != "/":
            places.append(os.path.dirname(places[-1]))
        return all(found.st_uid == 0 and not found.st_mode & 0o022 for found in map(os.lstat, places))
    return False


async def replace_file(
    directory: int, name: str, contents: bytes, *, mode: int, owner: tuple[int, int] = (0, 0)
) -> None:
    """Replace a file in an open directory as a whole, durably; raises OSError.

    Where another file is mounted on it, which cannot be renamed over, it is written in place.
    """
    # As one call: each costs a turn of the loop and of the import that goes on beside it.
    await in_thread(_replace, directory, name, contents, mode=mode, owner=owner)


def write_draft(directory: int, name: str, contents: bytes, *, mode: int) -> None:
    """Write a file that a program is to read now, and that need not survive a power cut; raises OSError."""
    with suppress(FileNotFoundError):  # of a run that was killed
        os.unlink(name, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    owner = os.geteuid(), os.getegid()
    _write(os.open(name, flags, 0o600, dir_fd=directory), contents, mode=mode, owner=owner, durable=False)


def replace_contents(path: str, contents: bytes, *, mode: int) -> None:
    """Do the same by path, for a directory that is root's alone; raises OSError."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _replace(directory, os.path.basename(path), contents, mode=mode, owner=(os.geteuid(), os.getegid()))
    finally:
        os.close(directory)


def _replace(directory: int, name: str, contents: bytes, *, mode: int, owner: tuple[int, int]) -> None:
    # The name is fixed, so that a killed run leaves at most one, and the next run takes its place.
    temporary = f".{name}.minprov"
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        _write(os.open(temporary, flags, 0o600, dir_fd=directory), contents, mode=mode, owner=owner)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        if not isinstance(error, OSError) or error.errno != errno.EBUSY:
            raise
        flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        _write(os.open(name, flags, dir_fd=directory), contents, mode=mode, owner=owner)
    sync(".", directory)  # by name, since fsync(2) refuses a descriptor opened with O_PATH


def _write(descriptor: int, contents: bytes, *, mode: int, owner: tuple[int, int], durable: bool = True) -> None:
    """Write a file that was just opened, have it on disk if that is to last, and close it."""
    try:
        left = memoryview(contents)
        while left:
            left = left[os.write(descriptor, left) :]
        if owner != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(path: str, directory: int | None = None) -> None:
    """Have a file's contents, or a directory's entries, on disk: what is on other file systems is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
