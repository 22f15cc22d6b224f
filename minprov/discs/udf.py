"""Read files from the root directory of a UDF volume: pure, over ``read(offset, size) -> bytes``.

UDF is OSTA's profile of ECMA-167. Both are cited by clause: "4/14.9" is ECMA-167 part 4, "UDF 2.2.10" is UDF 2.60.
Handles revisions 1.02 to 2.60 and logical blocks of 512 to 4096 bytes. The way to a file:

    anchor (block 256, N or N-256) -> volume descriptor sequence, main or reserve -> partitions and file set
    -> root directory's ICB -> file identifiers -> the file's ICB -> its extents

Each descriptor starts with a tag whose checksum, CRC and location must hold. A structure that has a second copy
(anchor, descriptor sequence, metadata file) is replaced by it when it is damaged. Virtual and sparable partitions,
which only write-once and rewritable discs have, are refused by name. It must not know of devices, nor what the files
mean.
"""

from __future__ import annotations

from binascii import crc_hqx
from struct import Struct
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.discs.volume import MAX_DIRECTORY, Contents, Disc, Read, corrupt, unsupported
from minprov.errors import ProvisioningError, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# 2048 is an optical disc's, the others are those of disk images; the anchor's tag location tells which is right.
BLOCK_SIZES = (2048, 512, 4096, 1024)
MAX_SEQUENCE = 64  # volume descriptors; 3/8.4.2.2 asks for an extent of at least 16 blocks, six of which are in use
MAX_METADATA_EXTENTS = 256

# Tag identifiers: 3/7.2.1, 4/7.2.1
ANCHOR, VOLUME_DESCRIPTOR_POINTER, PARTITION, LOGICAL_VOLUME, TERMINATOR = 2, 3, 5, 6, 8
FILE_SET, FILE_IDENTIFIER, ALLOCATION_EXTENT, FILE_ENTRY, EXTENDED_FILE_ENTRY = 256, 257, 258, 261, 266

# File types: 4/14.6.6, UDF 2.2.13.1
DIRECTORY, REGULAR, METADATA, METADATA_MIRROR = 4, 5, 250, 251

# File characteristics: 4/14.4.3. Linux does not show hidden entries either.
HIDDEN, IS_DIRECTORY, DELETED, PARENT = 1, 2, 4, 8

# Where a file's bytes are: 4/14.6.8
SHORT, LONG, EMBEDDED = 0, 1, 3

# Kinds of extents, the upper two bits of their length: 4/14.14.1.1. The other two are not recorded and read as zeros.
RECORDED, CONTINUATION = 0, 3

_TAG = Struct("<HHBxHHHI")  # 3/7.2: identifier, version, checksum, serial number, CRC, CRC length, location
_ANCHOR = Struct("<16xIIII")  # 3/10.2: length and block of the main sequence, of the reserve sequence
_POINTER = Struct("<20xII")  # 3/10.3: length and block of the next extent
_SEQUENCE_NUMBER = Struct("<16xI")  # 3/10.5.2, 3/10.6.2
_PARTITION = Struct("<22xH164xII")  # 3/10.5: partition number, first block, blocks
_LOGICAL_VOLUME = Struct("<212xI24xH10xIH6xII")  # 3/10.6, UDF 2.2.4: block size, revision, block and partition of
#                                                  the file set, bytes of partition maps, number of them
_MAPS = 440  # 3/10.6.13: offset of the partition maps
_PHYSICAL_MAP = Struct("<4xH")  # 3/10.7.2: partition number
_NAMED_MAP = Struct("<5x23s10xH")  # UDF 2.2.8 to 2.2.10: name, partition number
_METADATA_MAP = Struct("<40xII")  # UDF 2.2.10: block of the metadata file's ICB, of its mirror's
_FILE_SET = Struct("<404xIH")  # 4/14.1: block and partition of the root directory's ICB
_ICB = Struct("<20xH5xB6xH20xQ")  # 4/14.6, 4/14.9: strategy, file type, flags, length of the file
_LENGTHS = Struct("<II")  # 4/14.9, 4/14.17: of extended attributes, of allocation descriptors
_SHORT_AD = Struct("<II")  # 4/14.14.1: kind and length, block
_LONG_AD = Struct("<IIH6x")  # 4/14.14.2: kind and length, block, partition
_EXTENT_HEADER = Struct("<20xI")  # 4/14.5: length of allocation descriptors
_IDENTIFIER = Struct("<18xBB4xIH6xH")  # 4/14.4: characteristics, length of the name, block and partition of the ICB,
#                                        length of implementation use


def read_files(read: Read, size: int, limits: Mapping[str, int]) -> Contents:
    """Return those files of the root directory that `limits` names, none longer than its limit.

    Raises:
        ProvisioningError: MEDIA_CORRUPT, MEDIA_UNSUPPORTED, or what `read` raised.

    """
    volume, root = _mount(Disc(read, size))
    files: dict[str, bytes] = {}
    for name, block, partition in _identifiers(root):
        if name in limits and name not in files:
            entry = volume.entry(block, partition)
            if entry.type != REGULAR:
                raise unsupported("a file that is not a regular one", name=name, icb_file_type=entry.type)
            files[name], _ = entry.contents(limits[name])
            if len(files) == len(limits):
                break
    return Contents(files=files, volume=f"UDF {volume.revision >> 8:x}.{volume.revision & 0xFF:02x}")


def _mount(disc: Disc) -> tuple[_Volume, _Entry]:
    """Return the volume and its root directory, found by the first descriptors that lead there."""
    first_fault = None
    for block_size, sequence in _sequences(disc):
        try:
            volume = _Volume(disc, block_size, *_prevailing(disc, block_size, *sequence))
            return volume, volume.root()
        except ProvisioningError as fault:
            if fault.reason is Reason.MEDIA_UNSUPPORTED:
                raise
            first_fault = first_fault or fault
    raise first_fault or corrupt("no anchor at block 256, N or N-256", clause="3/8.4.2.1")


def _sequences(disc: Disc) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield block size and extent of each volume descriptor sequence that an anchor names: 3/8.4.2.1, 3/10.2.

    Raises in the end the error of an anchor that could not be read: it is why the others were not enough.
    """
    unreadable = None
    for from_start, back in ((True, 256), (False, 0), (False, 256)):
        for block_size in BLOCK_SIZES:
            last = disc.size // block_size - 1
            block = back if from_start else last - back
            if not 0 <= block <= last:
                continue
            try:
                anchor = disc.read(block * block_size, 512)
                _verify(anchor, block, ANCHOR)
            except ProvisioningError as fault:
                if fault.reason is Reason.MEDIA_UNREADABLE:
                    unreadable = fault
                continue  # that is what the other anchors are for
            main_length, main_block, reserve_length, reserve_block = _ANCHOR.unpack_from(anchor)
            yield block_size, (main_length, main_block)
            yield block_size, (reserve_length, reserve_block)
    if unreadable:
        raise unreadable


def _prevailing(disc: Disc, block_size: int, length: int, block: int) -> tuple[bytes, dict[int, bytes]]:
    """Return the logical volume descriptor and the partition descriptors that prevail: 3/8.4.2, 3/8.4.3."""
    logical_volume: bytes | None = None
    partitions: dict[int, bytes] = {}
    blocks = length // block_size
    for _ in range(MAX_SEQUENCE):
        if not blocks:
            break
        descriptor = disc.read(block * block_size, block_size)
        identifier, *_ = _TAG.unpack_from(descriptor)
        if identifier in (TERMINATOR, 0):  # 0: a block that was never recorded ends the sequence, too
            break
        if identifier in (VOLUME_DESCRIPTOR_POINTER, PARTITION, LOGICAL_VOLUME):
            _verify(descriptor, block, identifier)
        if identifier == VOLUME_DESCRIPTOR_POINTER:
            length, block = _POINTER.unpack_from(descriptor)
            blocks = length // block_size
            continue
        if identifier == PARTITION:
            number, _, _ = _PARTITION.unpack_from(descriptor)
            partitions[number] = _later(partitions.get(number), descriptor)
        elif identifier == LOGICAL_VOLUME:
            logical_volume = _later(logical_volume, descriptor)
        block += 1
        blocks -= 1
    if logical_volume is None:
        raise corrupt("no logical volume descriptor", clause="3/8.4.2")
    return logical_volume, partitions


def _later(known: bytes | None, descriptor: bytes) -> bytes:
    """Return the descriptor with the higher volume descriptor sequence number: 3/8.4.3."""
    if known is None or _SEQUENCE_NUMBER.unpack_from(known) <= _SEQUENCE_NUMBER.unpack_from(descriptor):
        return descriptor
    return known


def _verify(descriptor: bytes, location: int, *identifiers: int) -> int:
    """Return the descriptor's tag identifier after checking the tag: 3/7.2, 4/7.2."""
    identifier: int
    identifier, _, checksum, _, crc, crc_length, tag_location = _TAG.unpack_from(descriptor)
    fault = None
    if (sum(descriptor[:4]) + sum(descriptor[5:16])) & 0xFF != checksum:
        fault = "tag checksum"
    elif identifier not in identifiers:
        fault = f"tag identifier {identifier}"
    elif tag_location != location:
        fault = f"tag location {tag_location}"
    elif crc_length > len(descriptor) - 16 or crc_hqx(descriptor[16 : 16 + crc_length], 0) != crc:
        fault = "descriptor CRC"
    if fault:
        raise corrupt(fault, block=location, expected=" or ".join(map(str, identifiers)), clause="3/7.2")
    return identifier


class _Partition(NamedTuple):
    """A partition's logical blocks: runs of (blocks, first block on the disc, or None where not recorded)."""

    disc: Disc
    block_size: int
    runs: tuple[tuple[int, int | None], ...]

    def cut(self, block: int, blocks: int) -> Iterator[tuple[int, int | None]]:
        """Yield the runs that hold some consecutive blocks."""
        skip, left = block, blocks
        for run, first in self.runs:
            if skip >= run:
                skip -= run
                continue
            take = min(run - skip, left)
            yield take, None if first is None else first + skip
            skip = 0
            left -= take
            if not left:
                return
        if left:
            raise corrupt("an extent reaches beyond the end of its partition", block=block, blocks=blocks)

    def read(self, block: int, length: int) -> bytes:
        """Return the first `length` bytes from a block on."""
        pieces = []
        for blocks, first in self.cut(block, -(-length // self.block_size)):
            if first is None:
                raise corrupt("an extent leads to blocks that are not recorded", block=block)
            pieces.append(self.disc.read(first * self.block_size, blocks * self.block_size))
        return b"".join(pieces)[:length]

    def descriptor(self, block: int, *identifiers: int) -> tuple[int, bytes]:
        """Return the tag identifier and the bytes of the descriptor in a block."""
        descriptor = self.read(block, self.block_size)
        return _verify(descriptor, block, *identifiers), descriptor


class _Volume:
    """A logical volume: its partitions, in the order in which extents refer to them."""

    def __init__(self, disc: Disc, block_size: int, descriptor: bytes, partitions: dict[int, bytes]) -> None:
        stated, self.revision, *self._file_set, length, count = _LOGICAL_VOLUME.unpack_from(descriptor)
        if stated != block_size:  # UDF 2.2.4.2: a logical block is a sector
            raise corrupt("logical blocks and sectors differ in size", logical_block=stated, sector=block_size)
        self.block_size = block_size
        self._physical = {
            number: _Partition(disc, block_size, ((blocks, first),))
            for number, first, blocks in map(_PARTITION.unpack_from, partitions.values())
        }
        self._partitions: list[_Partition] = []
        maps = descriptor[_MAPS : _MAPS + length]
        for _ in range(count):
            if len(maps) < 2 or not 2 <= maps[1] <= len(maps):
                raise corrupt("a partition map does not fit its table", clause="3/10.7.1")
            self._partitions.append(self._map(maps[: maps[1]]))
            maps = maps[maps[1] :]

    def _map(self, entry: bytes) -> _Partition:
        """Return the partition that an entry of the partition map table describes: 3/10.7."""
        match entry[0], len(entry):
            case 1, 6:
                return self._physical_partition(*_PHYSICAL_MAP.unpack(entry))
            case 2, 64:
                name, number = _NAMED_MAP.unpack_from(entry)
                if name.startswith(b"*UDF Metadata Partition"):
                    return self._metadata_partition(self._physical_partition(number), *_METADATA_MAP.unpack_from(entry))
                raise unsupported(str(name.rstrip(b"\0"))[2:-1])  # whatever it is, printable
        raise corrupt("a partition map is of no known type", type=entry[0], length=len(entry), clause="3/10.7.1")

    def _physical_partition(self, number: int) -> _Partition:
        try:
            return self._physical[number]
        except KeyError:
            raise corrupt("no partition descriptor", partition=number, clause="3/10.5") from None

    def _metadata_partition(self, physical: _Partition, main: int, mirror: int) -> _Partition:
        """Return the partition whose blocks are those of the metadata file, or of its mirror: UDF 2.2.10, 2.2.13."""
        try:
            return self._entry(physical, main).as_partition(METADATA)
        except ProvisioningError:
            return self._entry(physical, mirror).as_partition(METADATA_MIRROR)

    def partition(self, reference: int) -> _Partition:
        """Return a partition by the number by which extents refer to it."""
        if reference >= len(self._partitions):
            raise corrupt("an extent in a partition that is not there", partition=reference, clause="4/7.1")
        return self._partitions[reference]

    def entry(self, block: int, partition: int) -> _Entry:
        """Return the file entry that the ICB at an address holds: 4/14.6, 4/14.9, 4/14.17."""
        return self._entry(self.partition(partition), block)

    def _entry(self, partition: _Partition, block: int) -> _Entry:
        identifier, descriptor = partition.descriptor(block, FILE_ENTRY, EXTENDED_FILE_ENTRY)
        strategy, kind, flags, length = _ICB.unpack_from(descriptor)
        if strategy != 4:  # UDF 2.3.5.1; 4096 chains rewritten entries on write-once discs
            raise unsupported(f"ICB strategy {strategy}", block=block)
        lengths_at = 168 if identifier == FILE_ENTRY else 208
        attributes, descriptors = _LENGTHS.unpack_from(descriptor, lengths_at)
        start = lengths_at + 8 + attributes
        if start + descriptors > len(descriptor):
            raise corrupt("a file entry does not fit its block", block=block, clause="4/14.9")
        return _Entry(self, partition, block, kind, flags & 7, length, descriptor[start : start + descriptors])

    def root(self) -> _Entry:
        """Return the root directory of the file set: 4/14.1."""
        block, partition = self._file_set
        _, descriptor = self.partition(partition).descriptor(block, FILE_SET)
        root = self.entry(*_FILE_SET.unpack_from(descriptor))
        if root.type != DIRECTORY:
            raise corrupt("the root directory is not a directory", icb_file_type=root.type, clause="4/14.1")
        return root


class _Entry(NamedTuple):
    """A file entry or extended file entry: what a file is and where its bytes are."""

    volume: _Volume
    partition: _Partition
    block: int
    type: int
    allocation: int
    length: int
    descriptors: bytes

    def contents(self, limit: int) -> tuple[bytes, list[int]]:
        """Return the file's bytes, and the logical block of each block of them."""
        if self.length > limit:
            raise unsupported("a file larger than any on provisioning media", length=self.length, limit=limit)
        size = self.volume.block_size
        if self.allocation == EMBEDDED:
            pieces, blocks, left = [self.descriptors[: self.length]], [self.block], self.length - len(self.descriptors)
        else:
            pieces, blocks, left = [], [], self.length
            for kind, length, partition, block in self._extents():
                if left <= 0:
                    break
                used = min(length, left)
                pieces.append(partition.read(block, used) if kind == RECORDED else bytes(used))
                blocks += range(block, block + -(-used // size))
                left -= used
                if left and used % size:
                    raise corrupt("an extent in the middle of a file ends in the middle of a block", clause="4/12.1")
        if left > 0:
            raise corrupt("a file is longer than its extents", length=self.length, missing=left, clause="4/12.1")
        return b"".join(pieces), blocks

    def _extents(self) -> Iterator[tuple[int, int, _Partition, int]]:
        """Yield kind, length, partition and block of each extent, following continuations: 4/12.1, 4/14.14.1.1."""
        if self.allocation not in (SHORT, LONG):
            raise unsupported(f"allocation descriptors of type {self.allocation}", block=self.block)  # UDF 2.3.10
        layout = _SHORT_AD if self.allocation == SHORT else _LONG_AD
        descriptors = self.descriptors
        while True:
            whole = len(descriptors) // layout.size * layout.size
            for word, block, *reference in layout.iter_unpack(descriptors[:whole]):
                kind, length = word >> 30, word & 0x3FFFFFFF
                if not length:
                    return
                partition = self.volume.partition(*reference) if reference else self.partition
                if kind == CONTINUATION:
                    _, header = partition.descriptor(block, ALLOCATION_EXTENT)
                    (size,) = _EXTENT_HEADER.unpack_from(header)
                    descriptors = header[_EXTENT_HEADER.size :][:size]
                    break
                yield kind, length, partition, block
            else:
                return

    def as_partition(self, file_type: int) -> _Partition:
        """Return the partition that a metadata file is: its blocks are the partition's blocks."""
        if self.type != file_type:
            raise corrupt("a metadata file is not one", icb_file_type=self.type, clause="UDF 2.2.13.1")
        size = self.volume.block_size
        runs: list[tuple[int, int | None]] = []
        for kind, length, partition, block in self._extents():
            runs += partition.cut(block, length // size) if kind == RECORDED else [(length // size, None)]
            if len(runs) > MAX_METADATA_EXTENTS:
                raise unsupported("a metadata file in more pieces than any real one", limit=MAX_METADATA_EXTENTS)
        return _Partition(self.partition.disc, size, tuple(runs))


def _identifiers(directory: _Entry) -> Iterator[tuple[str, int, int]]:
    """Yield name, block and partition of the ICB of each visible file in a directory: 4/14.4."""
    data, blocks = directory.contents(MAX_DIRECTORY)
    start = 0
    while start < len(data):
        if start + _IDENTIFIER.size > len(data):
            raise corrupt("a directory ends within a file identifier", offset=start, clause="4/14.4")
        characteristics, name_length, block, partition, use_length = _IDENTIFIER.unpack_from(data, start)
        name_at = start + _IDENTIFIER.size + use_length
        end = name_at + name_length
        if end > len(data):
            raise corrupt("a directory ends within a file identifier", offset=start, clause="4/14.4")
        padded = (end + 3) & ~3
        _verify(data[start:padded], blocks[start // directory.volume.block_size], FILE_IDENTIFIER)
        if not characteristics & (HIDDEN | IS_DIRECTORY | DELETED | PARENT):
            yield _name(data[name_at:end]), block, partition
        start = padded


def _name(identifier: bytes) -> str:
    """Decode OSTA compressed Unicode: UDF 2.1.1."""
    match identifier[:1]:
        case b"\x08":
            return identifier[1:].decode("latin-1")
        case b"\x10":
            return identifier[1:].decode("utf-16-be", "replace")
    raise corrupt("a file name is not OSTA compressed Unicode", compression=identifier[:1].hex(), clause="UDF 2.1.1")
