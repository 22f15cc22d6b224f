"""What is on a disk: its table, what libblkid recognises, the files of an NTFS volume, whether it is blank.

Reads only. What cannot be read is an error, never "nothing there"; `decision` says what follows from what was found.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from minprov.definitions import Enum, NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.ntfs import Directory, read_root_directory
from minprov.formats.partitions import PartitionTable, parse_partition_table
from minprov.machine.blocking import in_thread
from minprov.machine.tools import find_tool, run_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minprov.duties.resource_disk.discovery import Disk, Node

T = TypeVar("T")

# blkid(8): what its exit statuses mean when it probes.
BLKID_NOTHING, BLKID_AMBIVALENT = "2", "8"
WHOLE_LIMIT = 4 << 30
"""Up to this size every byte is read before a disk is called blank."""
END_SIZE = 16 << 20
SAMPLES, SAMPLE_SIZE = 4096, 4096
CHUNK = 1 << 20
PROBED = 4 << 20
"""Bytes at both ends that have all the signatures of libblkid; the farthest is that of VMFS, behind 2 MiB."""
XFS_IN_PROGRESS = 126, 1
"""Where the superblock has sb_inprogress, and its size: xfs_format.h in the kernel."""


class Signature(NamedTuple):
    """What libblkid says that a device holds; `type` is a file system, a table in brackets, or "several signatures"."""

    type: str
    label: str

    def __str__(self) -> str:
        return f'{self.type} "{self.label}"' if self.label else self.type


class Blank(Enum):
    """Whether a disk has any byte that is not zero."""

    NO = "no"
    YES = "every byte is zero"
    SAMPLED = "zeros wherever it was looked at"


class Contents(NamedTuple):
    """What is on a disk: `signatures` are those of the disk itself and of its partitions, in the order of its nodes.

    Of the last node, which is the disk itself where it has no partitions, `directory` is what an NTFS volume holds, or
    why that cannot be read; `unfinished` tells that mkfs.xfs was at work on it and did not come to its end.
    """

    table: PartitionTable | None
    signatures: tuple[Signature | None, ...]
    directory: Directory | ProvisioningError | None = None
    unfinished: bool = False
    blank: Blank = Blank.NO


async def look(disk: Disk) -> Contents:
    """Return what is on a disk.

    Raises:
        ProvisioningError: RESOURCE_DISK_NOT_USABLE, TOOL_NOT_FOUND, TOOL_FAILED.

    """
    whole, last = disk.whole, disk.nodes[-1]
    signatures = tuple([await probe(node) for node in disk.nodes])
    table = await in_thread(_on, whole, lambda read: _read_table(read, whole.size))
    contents = Contents(table, signatures)
    kind = signatures[-1].type if signatures[-1] else None
    if kind == "ntfs":
        try:
            directory = await in_thread(_on, last, lambda read: read_root_directory(read, last.size))
        except ProvisioningError as doubt:
            directory = doubt
        return contents._replace(directory=directory)
    if kind == "xfs":
        return contents._replace(unfinished=await in_thread(_on, last, lambda read: read(*XFS_IN_PROGRESS) == b"\1"))
    if not any(signatures) and not disk.partitions:
        return contents._replace(blank=await in_thread(_on, whole, lambda read: find_blank(read, whole.size)))
    return contents


def _read_table(read: Callable[[int, int], bytes], size: int) -> PartitionTable | None:
    """Return a table that can be read; one that cannot is in nobody's list of what may be overwritten."""
    try:
        return parse_partition_table(read, size)
    except ProvisioningError:
        return None


def unusable(error: OSError, path: str) -> ProvisioningError:
    """Translate an operating system error on the disk or on what is mounted from it."""
    return ProvisioningError(Reason.RESOURCE_DISK_NOT_USABLE, path=path, detail=error.strerror)


async def probe(node: Node) -> Signature | None:
    """Return what libblkid finds on a device."""
    blkid = find_tool("blkid")
    if blkid is None:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="blkid")
    try:
        printed = await run_tool([blkid, "--probe", "--output", "export", node.path])
    except ProvisioningError as error:
        if error.data.get("exit_status") == BLKID_NOTHING:
            await in_thread(_on, node, lambda read: _read_ends(read, node.size))
            return None
        if error.data.get("exit_status") == BLKID_AMBIVALENT:
            return Signature("several signatures", "")
        raise
    found = dict(line.partition("=")[::2] for line in printed.splitlines())
    label = found.get("LABEL", "").replace("\\", "")
    if "TYPE" in found:
        return Signature(found["TYPE"], label)
    return Signature(f"[{found['PTTYPE']}]", "") if "PTTYPE" in found else None


def _read_ends(read: Callable[[int, int], bytes], size: int) -> None:
    """Fail where libblkid looks and cannot read: its exit status is that of a device with nothing on it."""
    read(0, min(PROBED, size))
    read(max(size - PROBED, 0), min(PROBED, size))


def _on(node: Node, parse: Callable[[Callable[[int, int], bytes]], T]) -> T:
    """Return what a parser makes of a device."""
    try:
        descriptor = os.open(node.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return parse(lambda offset, size: _read(descriptor, offset, size))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unusable(error, node.path) from error


def _read(descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    # A blank disk's gigabytes would push what a booting system needs out of the page cache.
    os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)
    return data


def find_blank(read: Callable[[int, int], bytes], size: int) -> Blank:
    """Tell whether a disk of `size` bytes is blank, as far as can be told in a reasonable time."""
    zeros = bytes(CHUNK)
    for offset, length in _places(size):
        if read(offset, length) != zeros[:length]:  # a short read is no zeros either
            return Blank.NO
    return Blank.YES if size <= WHOLE_LIMIT else Blank.SAMPLED


def _places(size: int) -> Iterator[tuple[int, int]]:
    """Yield the places to look at: all of a small disk, both ends of a large one and samples between them."""
    ends = ((0, size),) if size <= WHOLE_LIMIT else ((0, END_SIZE), (size - END_SIZE, size))
    for start, end in ends:
        for offset in range(start, end, CHUNK):
            yield offset, min(CHUNK, end - offset)
    if size > WHOLE_LIMIT:
        step = size // SAMPLES
        for number in range(SAMPLES):
            yield number * step // SAMPLE_SIZE * SAMPLE_SIZE, SAMPLE_SIZE
