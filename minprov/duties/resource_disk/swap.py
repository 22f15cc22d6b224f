"""A swap file on the temporary disk, made anew whenever the disk is a new one.

Nowhere else: not on the system's disk, which is remote and billed, and not on a disk that minprov did not make. A swap
file may have no holes (swapon(8)); on btrfs it must not be copied on write either. Only this file is ever swapped off.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from minprov.duties.resource_disk.disk import find, is_marked
from minprov.duties.resource_disk.mount_point import outside_of_the_sandbox
from minprov.duties.resource_disk.usage import mounted_node, read_usage
from minprov.errors import ProvisioningError, Reason
from minprov.limits import ZEROS_LIMIT
from minprov.machine.blocking import in_thread
from minprov.machine.tools import find_tool, run_tool
from minprov.properties.inspection import Inspection

if TYPE_CHECKING:
    from minprov.duties.resource_disk.disk import Here
    from minprov.duties.resource_disk.settings import Options

NAME, NEW_NAME = "swapfile", ".swapfile.new"
SIGNATURE = b"SWAPSPACE2"  # at the end of the first page, linux/swap.h
FS_IOC_SETFLAGS, FS_NOCOW_FL = 0x40086602, 0x00800000  # linux/fs.h
UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
MIB, GIB = 1 << 20, 1 << 30
AUTO_STEP = 128 * MIB
"""A kernel update changes MemTotal a little, which is no reason for another file."""
LEAST = 16 * MIB


async def inspect(options: Options, here: Here) -> Inspection:
    """Tell whether the file is swapped on, and what is there."""
    path = _path(options)
    if find(options, here) is None:
        return Inspection(True, "no resource disk")
    if not _has_disk(options, here):
        return Inspection(False, "the temporary disk is not mounted by minprov")
    size, wanted = _size(path), _wanted(options, here)
    active = next((swap for swap in read_usage(here.proc).swaps if swap.path == path), None)
    if _is_right(size, options, here):
        # The first page is the header's, and what is no whole page at the border of an extent is lost.
        if active and 0.9 * size <= active.size < size:
            return Inspection(True, f"{_shown(size)}, on")
        return Inspection(False, f"{_shown(size)}, off: to be on")
    present = f"{_shown(size)}, on" if active else _shown(size) if size else "absent"
    return Inspection(False, f"{present}, to be {_shown(wanted)}")


async def converge(options: Options, here: Here) -> None:
    """Make the file where it is not as it should be, and swap on it."""
    path = _path(options)
    if not _has_disk(options, here):
        raise _failed(path, "the temporary disk is not mounted by minprov")
    try:
        if _is_right(_size(path), options, here):
            with suppress(ProvisioningError):  # a file that has another page size, or that fallocate(2) did not suit
                return await _turn_on(path, options)
        if any(swap.path == path for swap in read_usage(here.proc).swaps):
            await run_tool(outside_of_the_sandbox(["swapoff", path]), limit=ZEROS_LIMIT)
        with suppress(FileNotFoundError):
            os.unlink(path)
        wanted = _wanted(options, here)
        if wanted < LEAST:
            raise _failed(path, "no room on the temporary disk")
        await _make(path, wanted, zeros=False)
        try:
            await _turn_on(path, options)
        except ProvisioningError:
            # Before Linux 4.18 xfs takes what fallocate(2) has allocated for holes.
            await _make(path, wanted, zeros=True)
            await _turn_on(path, options)
    except OSError as error:
        raise _failed(path, error.strerror) from error
    except ProvisioningError as error:
        raise error if error.reason is Reason.SWAP_NOT_ACTIVE else _failed(path, **error.data) from error


async def _turn_on(path: str, options: Options) -> None:
    await run_tool(outside_of_the_sandbox(["swapon", "-p", str(options.swap_priority), path]))


async def _make(path: str, size: int, *, zeros: bool) -> None:
    """Make the file beside its place, so that half a file is never taken for one."""
    new = f"{os.path.dirname(path)}/{NEW_NAME}"
    with suppress(FileNotFoundError):
        os.unlink(new)
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with suppress(OSError):  # other file systems have no such flag, or do not heed it
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", FS_NOCOW_FL))
        await in_thread(_fill, descriptor, size, zeros=zeros)
    except BaseException:
        os.unlink(new)
        raise
    finally:
        os.close(descriptor)
    await run_tool([find_tool("mkswap") or "mkswap", new])
    os.rename(new, path)


def _fill(descriptor: int, size: int, *, zeros: bool) -> None:
    if not zeros:
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
    deadline, chunk = time.monotonic() + ZEROS_LIMIT, bytes(MIB)
    for offset in range(0, size, MIB):
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, f"no end after {ZEROS_LIMIT:g} s")
        os.pwrite(descriptor, chunk[: size - offset], offset)
    os.fsync(descriptor)


# -- the size ----------------------------------------------------------------------------------------------------------


def _wanted(options: Options, here: Here) -> int:
    """Return the size that the file should have on this disk: at most half of what is free without it."""
    return min(requested_size(options.swap_size, _memory(here)), _limit(options))


def requested_size(setting: str, memory: int) -> int:
    """Return the size in bytes that the configuration asks for; `auto` is cloud-init's rule, config/cc_mounts.py."""
    if setting != "auto":
        return int(setting[:-3]) * (GIB if setting.endswith("GiB") else MIB)
    if memory < 4 * GIB:
        return -(-memory // AUTO_STEP) * AUTO_STEP
    return 4 * GIB if memory < 16 * GIB else round((memory / GIB) ** 0.5) * GIB


def _limit(options: Options) -> int:
    room = os.statvfs(options.mount_point)
    free = room.f_bavail * room.f_frsize + _size(_path(options))
    return free // 2 // MIB * MIB


def _is_right(size: int, options: Options, here: Here) -> bool:
    """Tell whether a file of this size may stay; one that took what there was may, though there is more or less now."""
    requested, limit = requested_size(options.swap_size, _memory(here)), _limit(options)
    if requested <= limit and options.swap_size != "auto":
        return size == requested
    return 0.9 * min(requested, limit) <= size <= 1.1 * requested and size >= LEAST


def _size(path: str) -> int:
    """Return the size of a swap file that is root's alone, 0 for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        found = os.fstat(descriptor)
        page = os.sysconf("SC_PAGE_SIZE")
        signature = os.pread(descriptor, len(SIGNATURE), page - len(SIGNATURE))
    finally:
        os.close(descriptor)
    private = stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600 and found.st_uid == 0
    return found.st_size if private and signature == SIGNATURE else 0


def _memory(here: Here) -> int:
    with open(f"{here.proc}/meminfo", encoding="ascii") as stream:
        return next(int(line.split()[1]) << 10 for line in stream if line.startswith("MemTotal:"))


def _has_disk(options: Options, here: Here) -> bool:
    disk = find(options, here)
    return bool(disk and mounted_node(disk, read_usage(here.proc), options.mount_point) and is_marked(options))


def _path(options: Options) -> str:
    return f"{options.mount_point}/{NAME}"


def _shown(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size // MIB} MiB"


def _failed(path: str, detail: str | None = None, **data: object) -> ProvisioningError:
    return ProvisioningError(Reason.SWAP_NOT_ACTIVE, path=path, detail=detail, **data)
