"""Make the fixed VHD that Azure takes from a disk image, and read it back.

The image is copied without its zeros into a file that gets its name when it is complete: the disk grows to a whole
number of MiB, a GPT's backup header moves to the new end, the footer follows, and all of it is written through before.
"""

from __future__ import annotations

import os
import secrets
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.disk_image import ImageFormat
from minprov.formats.partitions import move_backup, parse_partition_table
from minprov.formats.vhd_footer import MAX_OS_DISK, SIZE, aligned, build_footer, violations
from minprov.image import qemu_img
from minprov.image.disk_file import DiskFile, open_disk
from minprov.image.layout import Layout, judge_layout
from minprov.image.progress import Progress, StatusLine
from minprov.machine.tools import find_tool

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1 << 16
"""What is zero is left out in pieces of this size."""
_ZEROS = bytes(BLOCK)
QEMU_MAX = 2040 << 30
"""qemu-img opens no VHD beyond this size (QEMU, block/vpc.c: VHD_MAX_SECTORS)."""


class Plan(NamedTuple):
    """What making a VHD comes to."""

    image: str
    format: ImageFormat
    image_size: int
    """Bytes of the disk in the image."""
    size: int
    """Bytes of the disk in the VHD."""
    layout: Layout | None
    """Of the disk; None before the image is converted, where its format is read by qemu-img alone."""
    moves_backup: bool | None
    """The GPT's backup header moves; None as above."""
    notes: tuple[str, ...]

    @property
    def file_size(self) -> int:
        """Return the size of the VHD's file, which is what Azure has to be told."""
        return self.size + SIZE


def plan_vhd(image: str, size: int | None = None) -> Plan:
    """Return what `make_vhd` would make of the image; nothing is written.

    Raises:
        ProvisioningError: as `make_vhd`.

    """
    with open_disk(image) as disk:
        return _plan(disk, size)


def make_vhd(image: str, out: str, size: int | None = None) -> Plan:
    """Write the image's disk to `out`, a new file, as a VHD of `size` bytes or the next size that Azure takes.

    Raises:
        ProvisioningError: USAGE, IMAGE_INVALID, IMAGE_IN_USE, IMAGE_UNREADABLE, OUTPUT_FAILED.

    """
    with open_disk(image) as disk, _new_file(out) as target:
        plan = _plan(disk, size)
        with _writing(out):
            _copy(disk, target)
        copied = disk._replace(descriptor=target, path=out, format=ImageFormat.RAW, footer=None, is_plain=True)
        writes = move_backup(copied.read, disk.size, plan.size)
        footer = build_footer(plan.size, uuid=uuid.uuid4().bytes, time=int(time.time()))
        with _writing(out):
            os.ftruncate(target, plan.size)
            for write in (*writes, (plan.size, footer)):
                os.pwrite(target, write[1], write[0])
            line = StatusLine()
            line.show("waiting until the disk has it all")
            try:
                os.fsync(target)
            finally:
                line.clear()
        layout = _read_back(out, target, plan)
    return plan._replace(layout=layout, moves_backup=bool(writes))


def _plan(disk: DiskFile, wanted: int | None) -> Plan:
    size = aligned(disk.size)
    if wanted is not None:
        if wanted < disk.size:
            detail = f"the disk has {disk.size} bytes and would shrink to {wanted}: nothing is cut off"
            raise ProvisioningError(Reason.USAGE, image=disk.path, detail=detail)
        size = aligned(wanted)
    notes = []
    if size > MAX_OS_DISK:
        notes.append(f"an OS disk on Azure has {MAX_OS_DISK >> 30} GiB at most: this can be a data disk only")
    layout, moves = None, None
    if disk.is_plain:
        layout = judge_layout(disk.path, parse_partition_table(disk.read, disk.size))
        moves = bool(move_backup(disk.read, disk.size, size))
    return Plan(disk.path, disk.format, disk.size, size, layout, moves, tuple(notes))


@contextmanager
def _new_file(out: str) -> Iterator[int]:
    """Yield a file that is called `out` once the block has ended without an error, and is gone if not.

    Raises:
        ProvisioningError: OUTPUT_FAILED; `out` exists, before or after, or its directory takes no file.

    """
    directory, name = os.path.split(os.path.abspath(out))
    partial = f"{directory}/.{name}.{secrets.token_hex(4)}.partial"
    if os.path.lexists(out):
        raise ProvisioningError(Reason.OUTPUT_FAILED, path=out, detail="it exists, and nothing is overwritten")
    file = None
    try:
        with _writing(out):
            file = open(partial, "x+b", buffering=0)  # noqa: SIM115  # a signal may come before a `with` has begun
        yield file.fileno()
        with _writing(out):
            os.link(partial, out)  # which replaces nothing, as a rename would
            os.unlink(partial)
            _sync_directory(directory)
    finally:
        if file is not None:
            file.close()
        with suppress(FileNotFoundError):
            os.unlink(partial)


@contextmanager
def _writing(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProvisioningError(Reason.OUTPUT_FAILED, path=out, detail=error.strerror) from error


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(disk: DiskFile, target: int) -> None:
    progress = Progress("copying")
    os.ftruncate(target, disk.size)
    try:
        if disk.is_plain:
            _copy_plain(disk, target, progress)
        else:
            qemu_img.convert(disk.path, disk.format, f"/proc/{os.getpid()}/fd/{target}", progress)
    finally:
        progress.end()


def _copy_plain(disk: DiskFile, target: int, progress: Progress) -> None:
    for start, end in _data(disk):
        for offset in range(start, end, BLOCK):
            piece = disk.read(offset, min(BLOCK, end - offset))
            if not piece:
                raise ProvisioningError(
                    Reason.IMAGE_IN_USE, image=disk.path, detail="it became shorter while it was read"
                )
            if piece != _ZEROS[: len(piece)]:
                os.pwrite(target, piece, offset)
            progress.show(offset / disk.size)


def _data(disk: DiskFile) -> Iterator[tuple[int, int]]:
    """Yield where the image's file has data, in whole blocks; the rest are holes."""
    position = 0
    while position < disk.size:
        try:
            data = os.lseek(disk.descriptor, position, os.SEEK_DATA)
        except OSError:  # ENXIO: there is none up to the end
            return
        hole = os.lseek(disk.descriptor, data, os.SEEK_HOLE)
        start = max(position, data // BLOCK * BLOCK)
        position = min(disk.size, -(-hole // BLOCK) * BLOCK)
        if start < position:
            yield start, position


def _read_back(out: str, descriptor: int, plan: Plan) -> Layout:
    """Read what was written as `check` would, and let qemu-img read it too; return its layout."""
    footer = os.pread(descriptor, SIZE + 1, plan.size)
    found = violations(footer, os.fstat(descriptor).st_size)
    if found:
        raise ProvisioningError(Reason.READ_BACK, path=out, detail=found[0])
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    if plan.size <= QEMU_MAX and find_tool("qemu-img"):
        size = qemu_img.info(path, ImageFormat.VHD).get("virtual-size")
        if size != plan.size:
            raise ProvisioningError(Reason.READ_BACK, path=out, detail=f"qemu-img reads a disk of {size} bytes")
    disk = DiskFile(out, ImageFormat.VHD, descriptor, plan.size, plan.file_size, footer, is_plain=True)
    return judge_layout(path, parse_partition_table(disk.read, disk.size))
