"""A file or device that holds a disk: its format and size, whether somebody writes to it, and bounded reads of it.

An image may come from anywhere. It is opened by the driver that its own mark names, not by a guess of QEMU's, and one
that refers to other files is refused: what it names would be read with our rights.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.disk_image import HEAD, TAIL, ImageFormat, find_no_disk, recognise
from minprov.formats.vhd_footer import COOKIE, MAX_DISK, SIZE
from minprov.image import qemu_img

if TYPE_CHECKING:
    from collections.abc import Iterator


_OPEN_REASONS = {
    errno.EBUSY: Reason.IMAGE_IN_USE,
    errno.EACCES: Reason.NOT_PERMITTED,
    errno.EPERM: Reason.NOT_PERMITTED,
}


class DiskFile(NamedTuple):
    """An open image."""

    path: str
    format: ImageFormat
    descriptor: int
    size: int
    """Bytes of the disk, which are not those of the file."""
    file_size: int
    footer: bytes | None
    """Of a VHD."""

    is_plain: bool
    """The file begins with the disk's bytes: it is raw, or a VHD that is not dynamic, whatever its footer says."""

    def read(self, offset: int, length: int) -> bytes:
        """Return what there is of `length` bytes at `offset` of a plain disk."""
        if not 0 <= offset < self.size:
            return b""
        try:
            return os.pread(self.descriptor, min(length, self.size - offset), offset)
        except OSError as error:
            raise ProvisioningError(Reason.IMAGE_INVALID, image=self.path, detail=error.strerror) from error


@contextmanager
def open_disk(path: str) -> Iterator[DiskFile]:
    """Yield the image at `path`, which nobody may write to.

    Raises:
        ProvisioningError: USAGE if there is no such file, IMAGE_IN_USE, IMAGE_INVALID, NOT_PERMITTED; IMAGE_UNREADABLE
            without qemu-img where the format needs it.

    """
    descriptor = _open(path)
    try:
        _refuse_writers(path, descriptor)
        before = os.stat(descriptor)
        yield _inspect(path, descriptor)
        after = os.stat(descriptor)
        if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
            raise ProvisioningError(Reason.IMAGE_IN_USE, image=path, detail="it changed while it was being read")
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    try:
        # What stands behind a FIFO's name or a device's could keep an open for ever.
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise ProvisioningError(Reason.USAGE, image=path, detail="neither a file nor a block device")
        # The kernel lets a block device be opened so by one only, and not while a file system or swap is on it.
        exclusive = os.O_EXCL if stat.S_ISBLK(mode) else 0
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | exclusive)
    except OSError as error:
        reason = _OPEN_REASONS.get(error.errno or 0, Reason.USAGE)
        raise ProvisioningError(reason, image=path, detail=error.strerror) from error


def _refuse_writers(path: str, descriptor: int) -> None:
    """Raise IMAGE_IN_USE if the file is open for writing: by QEMU, by a loop device, by whatever makes it.

    A read lease can be had on a file only while nobody has it open so (fcntl(2)). Where leases are not known, as on
    NFS, or the file is another user's, this cannot be told; that the file did not change is looked at in the end.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError as error:
        raise ProvisioningError(Reason.IMAGE_IN_USE, image=path, detail="a process has it open for writing") from error
    except OSError:
        return


def _inspect(path: str, descriptor: int) -> DiskFile:
    try:
        file_size = os.lseek(descriptor, 0, os.SEEK_END)
        head = os.pread(descriptor, HEAD, 0)
        tail = os.pread(descriptor, TAIL, max(0, file_size - TAIL))
    except OSError as error:
        raise ProvisioningError(Reason.IMAGE_INVALID, image=path, detail=error.strerror) from error
    image_format = recognise(head, tail)
    if image_format is ImageFormat.RAW and (what := find_no_disk(head)):
        hint = "unpack it, or make a disk of it: qemu-img convert -O qcow2"
        raise ProvisioningError(Reason.IMAGE_INVALID, image=path, detail=f"it is {what}", hint=hint)
    footer = None
    size = file_size
    if image_format is ImageFormat.VHD:
        footer = tail if tail.startswith(COOKIE) else head
        size = file_size - SIZE
    is_plain = image_format is ImageFormat.RAW or (image_format is ImageFormat.VHD and not head.startswith(COOKIE))
    disk = DiskFile(path, image_format, descriptor, size, file_size, footer, is_plain)
    if not is_plain:
        disk = disk._replace(size=_virtual_size(disk))
    if not 0 < disk.size <= MAX_DISK:
        raise ProvisioningError(Reason.IMAGE_INVALID, image=path, size=disk.size, detail="no size that a disk has")
    return disk


def _virtual_size(disk: DiskFile) -> int:
    """Return the size of the disk that qemu-img sees, if it is in this one file."""
    described = qemu_img.info(disk.path, disk.format)
    others = [described.get("full-backing-filename") or described.get("backing-filename"), *_others(described, disk)]
    for other in others:
        if other:
            raise ProvisioningError(
                Reason.IMAGE_INVALID,
                image=disk.path,
                detail=f"a part of the disk is in another file, {other}",
                hint=f"make one of them: qemu-img convert -f {disk.format.driver} -O qcow2 {disk.path} whole.qcow2",
            )
    size = described.get("virtual-size")
    if not isinstance(size, int):
        raise ProvisioningError(Reason.IMAGE_INVALID, image=disk.path, detail="qemu-img tells no size")
    return size


def _others(described: dict[str, Any], disk: DiskFile) -> Iterator[str]:
    data = (described.get("format-specific") or {}).get("data") or {}
    if data.get("data-file"):
        yield str(data["data-file"])
    for extent in data.get("extents") or ():
        name = str(extent.get("filename", ""))
        if name and os.path.realpath(name) != os.path.realpath(disk.path):
            yield name
