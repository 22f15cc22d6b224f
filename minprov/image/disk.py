"""The system on a disk image as a tree, and what the disk itself tells.

As root the kernel mounts it. Where that fails (not root, no loop devices, no driver, LVM, md), libguestfs reads it if
installed. A format that is not plain is converted to a temporary file first. The image is never written to, and nothing
of it is executed.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.formats.disk_image import ImageFormat
from minprov.formats.partitions import Partition, PartitionTable, parse_partition_table
from minprov.formats.superblocks import recognise_contents
from minprov.formats.vhd_footer import violations
from minprov.image import guestfs, qemu_img
from minprov.image.disk_file import DiskFile, open_disk
from minprov.image.layout import judge_layout
from minprov.image.model import Disk, Volume
from minprov.image.mounted_disk import MountedDisk
from minprov.image.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def disk_tree(path: str) -> Iterator[tuple[str, Disk]]:
    """Yield the root directory of the system on an image, and the disk.

    Raises:
        ProvisioningError: as `open_disk`; IMAGE_INVALID for a damaged table; IMAGE_UNREADABLE if no system was
            found, with what was found and what would read it.

    """
    with ExitStack() as stack:
        image = stack.enter_context(open_disk(path))
        work = stack.enter_context(_work_directory())
        plain = _plain(image, work, stack)
        table = parse_partition_table(plain.read, plain.size)
        disk = Disk(
            path=path,
            format=image.format,
            size=image.size,
            file_size=image.file_size,
            vhd_violations=None if image.footer is None else tuple(violations(image.footer, image.file_size)),
            table=table,
            layout=judge_layout(plain.path, table),
            volumes=tuple(_volumes(plain, table)),
            reader="kernel",
        )
        root = f"{work}/root"
        os.mkdir(root)
        yield stack.enter_context(_read(plain, disk, work))


@contextmanager
def _work_directory() -> Iterator[str]:
    """Yield a directory of our own where temporary files may be large."""
    place = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108  # a directory of our own is made in it
    try:
        directory = tempfile.TemporaryDirectory(prefix="minprov-", dir=place)
    except OSError as error:
        raise ProvisioningError(Reason.OUTPUT_FAILED, path=place, detail=error.strerror) from error
    with directory as path:
        yield path


def _plain(image: DiskFile, work: str, stack: ExitStack) -> DiskFile:
    """Return the image as a file that begins with the disk's bytes."""
    if image.is_plain:
        return image
    path = f"{work}/disk.raw"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, descriptor)
    progress = Progress("reading")
    try:
        os.ftruncate(descriptor, image.size)
        qemu_img.convert(image.path, image.format, path, progress)
    except OSError as error:
        raise ProvisioningError(Reason.OUTPUT_FAILED, path=path, detail=error.strerror) from error
    finally:
        progress.end()
    return DiskFile(path, ImageFormat.RAW, descriptor, image.size, image.size, footer=None, is_plain=True)


def _volumes(disk: DiskFile, table: PartitionTable | None) -> Iterator[Volume]:
    for part in table.partitions if table else (Partition(0, 0, disk.size, ""),):
        size = min(part.size, disk.size - part.start)
        if size <= 0:
            yield Volume(part, None, unread="it is beyond the end of the disk")
            continue

        def read(offset: int, length: int, part: Partition = part, size: int = size) -> bytes:
            return disk.read(part.start + offset, max(0, min(length, size - offset))) if offset < size else b""

        yield Volume(part._replace(size=size), recognise_contents(read, size))


@contextmanager
def _read(plain: DiskFile, disk: Disk, work: str) -> Iterator[tuple[str, Disk]]:
    """Yield the root directory and the disk, read by whatever can."""
    try:
        if os.geteuid() != 0:
            raise ProvisioningError(Reason.IMAGE_UNREADABLE, detail="only root can mount it")
        mounted = MountedDisk(plain, disk.volumes, work)
    except ProvisioningError as error:
        if error.reason is not Reason.IMAGE_UNREADABLE:
            raise
        if not guestfs.is_installed():
            raise ProvisioningError(
                Reason.IMAGE_UNREADABLE,
                image=disk.path,
                detail=error.data.get("detail"),
                hint="run as root, with loop devices and the file systems in the kernel, or install guestmount",
            ) from error
        with guestfs.guest_tree(plain, f"{work}/root"):
            yield f"{work}/root", disk._replace(reader="libguestfs")
        return
    try:
        yield mounted.root, disk._replace(volumes=tuple(mounted.volumes))
    finally:
        mounted.close()
