"""Write UDF volumes with any legal structure, also those that no tool at hand makes.

mkudffs and genisoimage make plain volumes. This writes the rest: metadata partitions, chained and scattered extents,
both kinds of file entries, holes, deleted and hidden names. The Linux kernel reads what it writes (the images in
tests/data/media are held against it), so where the reader under test disagrees with it, the reader is wrong. Fields are
those of ECMA-167 parts 3 and 4, in their order; the clause is cited at each structure.
"""

from __future__ import annotations

import random
from binascii import crc_hqx
from dataclasses import dataclass
from struct import pack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PARTITION_START = 272
SEQUENCE_BLOCKS = 16
MAIN_SEQUENCE, RESERVE_SEQUENCE, INTEGRITY = 96, 112, 128
SHORT, LONG, EMBEDDED = 0, 1, 3  # 4/14.6.8
NOT_ALLOCATED, CONTINUATION = 2 << 30, 3 << 30  # 4/14.14.1.1
DIRECTORY, REGULAR, METADATA, METADATA_MIRROR = 4, 5, 250, 251  # 4/14.6.6, UDF 2.2.13.1
HIDDEN, DELETED, PARENT = 1, 4, 2 | 8  # 4/14.4.3
CHARSPEC = b"\0" + b"OSTA Compressed Unicode".ljust(63, b"\0")
TIMESTAMP = pack("<HhBBBBBBBB", 0x1000, 2024, 1, 1, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a volume is structured."""

    block_size: int = 2048
    revision: int = 0x0102
    extended: bool = False  # extended file entries
    allocation: int = SHORT
    embed: bool = True  # whatever fits in a file entry
    piece: int = 64  # blocks of an extent
    chain: int | None = None  # extents described before each continuation
    scatter: int | None = None  # seed for the order in which blocks are used
    metadata_piece: int | None = None  # with a metadata partition, its file in extents of so many blocks
    deleted: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


def write_volume(files: dict[str, bytes], layout: Layout | None = None) -> bytes:
    """Return the image of a volume whose root directory has these files."""
    return _Writer(layout or Layout()).volume(files)


def descriptor(identifier: int, location: int, body: bytes, version: int = 2) -> bytes:
    """Return a body behind a tag that fits it (3/7.2)."""
    start = pack("<HH", identifier, version)
    end = pack("<xHHHI", 1, crc_hqx(body, 0), len(body), location)
    return start + bytes([(sum(start) + sum(end)) & 0xFF]) + end + body


def entity(name: bytes, suffix: bytes = b"") -> bytes:
    """Return an entity identifier (1/7.4)."""
    return b"\0" + name.ljust(23, b"\0") + suffix.ljust(8, b"\0")


def compressed(name: str) -> bytes:
    """Return a name as OSTA compressed Unicode (UDF 2.1.1)."""
    try:
        return b"\x08" + name.encode("latin-1")
    except UnicodeEncodeError:
        return b"\x10" + name.encode("utf-16-be")


def dstring(text: str, size: int) -> bytes:
    """Return a fixed-length character field (1/7.2.12)."""
    return compressed(text).ljust(size - 1, b"\0") + bytes([len(compressed(text))])


def long_ad(length: int, block: int, partition: int) -> bytes:
    """Return a long allocation descriptor (4/14.14.2)."""
    return pack("<IIH6x", length, block, partition)


class _Space:
    """The blocks of a partition, handed out in order or at random."""

    def __init__(self, reference: int, scatter: int | None) -> None:
        self.reference = reference
        self.blocks: dict[int, bytes] = {}
        self._random = None if scatter is None else random.Random(scatter)

    @property
    def length(self) -> int:
        return max(self.blocks, default=-1) + 1

    def take(self, count: int = 1) -> int:
        """Reserve some consecutive blocks and return the first."""
        first = self.length
        if self._random:
            first = self._random.randrange(first + 8)
            while any(block in self.blocks for block in range(first, first + count)):
                first += 1
        self.blocks |= dict.fromkeys(range(first, first + count), b"")
        return first

    def put(self, first: int, data: bytes, size: int) -> None:
        for index, start in enumerate(range(0, len(data), size)):
            self.blocks[first + index] = data[start : start + size]

    def image(self, size: int) -> bytes:
        return b"".join(self.blocks.get(block, b"").ljust(size, b"\0") for block in range(self.length))


class _Writer:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.size = layout.block_size
        self.version = 2 if layout.revision < 0x0200 else 3
        self.data = self.structures = _Space(0, layout.scatter)
        if layout.metadata_piece:
            self.structures = _Space(1, layout.scatter)

    def volume(self, files: dict[str, bytes]) -> bytes:
        file_set, root = self.structures.take(), self.structures.take()
        entries = [(b"", PARENT, root)]
        entries += [(compressed(name), DELETED, self.file(REGULAR, b"gone", self.data)) for name in self.layout.deleted]
        for name, data in files.items():
            hidden = HIDDEN if name in self.layout.hidden else 0
            entries.append((compressed(name), hidden, self.file(REGULAR, data, self.data)))
        self.directory(root, entries)
        self.structures.put(file_set, self.file_set(file_set, root), self.size)
        maps = [pack("<BBHH", 1, 6, 1, 0)]  # 3/10.7.2
        if self.structures is not self.data:
            maps.append(self.metadata_map())
        return self.whole(file_set, maps)

    def descriptor(self, identifier: int, location: int, body: bytes) -> bytes:
        return descriptor(identifier, location, body, self.version)

    # Part 4: files

    def file(self, file_type: int, data: bytes, space: _Space) -> int:
        """Write a file to a space and its ICB to the structures, and return the ICB's block."""
        icb = self.structures.take()
        if self.layout.embed and len(data) <= self.size - (216 if self.layout.extended else 176):
            self.entry(icb, file_type, EMBEDDED, len(data), data, self.structures)
        else:
            allocation, descriptors = self.extents(data, space)
            self.entry(icb, file_type, allocation, len(data), descriptors, self.structures)
        return icb

    def extents(self, data: bytes, space: _Space) -> tuple[int, bytes]:
        """Write data to a space and return what describes where: the kind of descriptors, and they."""
        extents = []
        step = self.layout.piece * self.size
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            if not any(piece) and start + step < len(data):
                extents.append((NOT_ALLOCATED | len(piece), 0))
            else:
                first = space.take(-(-len(piece) // self.size))
                space.put(first, piece, self.size)
                extents.append((len(piece), first))
        allocation = LONG if space is not self.structures else self.layout.allocation  # short ones stay with their ICB
        return allocation, self.chained([self.allocation(allocation, *extent, space) for extent in extents], allocation)

    def allocation(self, allocation: int, length: int, block: int, space: _Space) -> bytes:
        return long_ad(length, block, space.reference) if allocation == LONG else pack("<II", length, block)

    def chained(self, descriptors: list[bytes], allocation: int) -> bytes:
        """Return the first descriptors, the last of which continues in an allocation extent descriptor (4/14.5)."""
        chain = self.layout.chain
        if chain is None or len(descriptors) <= chain:
            return b"".join(descriptors)
        rest = self.chained(descriptors[chain:], allocation)
        block = self.structures.take()
        self.structures.put(block, self.descriptor(258, block, pack("<II", 0, len(rest)) + rest), self.size)
        return b"".join(descriptors[:chain]) + self.allocation(
            allocation, CONTINUATION | self.size, block, self.structures
        )

    def entry(
        self, block: int, file_type: int, allocation: int, length: int, descriptors: bytes, space: _Space
    ) -> None:
        """Write a file entry (4/14.9) or an extended one (4/14.17)."""
        body = pack("<IHHHxB6xH", 0, 4, 0, 1, file_type, allocation)  # 4/14.6
        body += pack("<IIIHBBI", 0, 0, 0o12345, 1, 0, 0, 0) + pack("<Q", length)
        if self.layout.extended:
            body += pack("<QQ", length, -(-length // self.size)) + 4 * TIMESTAMP + pack("<II", 1, 0) + bytes(32)
        else:
            body += pack("<Q", -(-length // self.size)) + 3 * TIMESTAMP + pack("<I", 1) + bytes(16)
        body += entity(b"*minprov") + pack("<QII", block, 0, len(descriptors)) + descriptors
        assert len(body) + 16 <= self.size, "the descriptors of a file do not fit its entry: chain them"
        space.put(block, self.descriptor(266 if self.layout.extended else 261, block, body), self.size)

    def directory(self, icb: int, entries: list[tuple[bytes, int, int]]) -> None:
        """Write a directory (4/8.6): the file identifiers' tags name the blocks that they begin in."""
        length = len(self.identifiers(entries, lambda _: 0))
        if self.layout.embed and length <= self.size - (216 if self.layout.extended else 176):
            data = self.identifiers(entries, lambda _: icb)
            self.entry(icb, DIRECTORY, EMBEDDED, length, data, self.structures)
            return
        # As many extents as `piece` asks for, all of them in order of their blocks' being taken.
        step = self.layout.piece
        blocks: list[int] = []
        descriptors = []
        for start in range(0, -(-length // self.size), step):
            count = min(step, -(-length // self.size) - start)
            first = self.structures.take(count)
            blocks += range(first, first + count)
            used = min(step * self.size, length - start * self.size)
            descriptors.append(self.allocation(self.layout.allocation, used, first, self.structures))
        data = self.identifiers(entries, lambda offset: blocks[offset // self.size])
        for index, block in enumerate(blocks):
            self.structures.put(block, data[index * self.size :][: self.size], self.size)
        chained = self.chained(descriptors, self.layout.allocation)
        self.entry(icb, DIRECTORY, self.layout.allocation, length, chained, self.structures)

    def identifiers(self, entries: list[tuple[bytes, int, int]], block_at: Callable[[int], int]) -> bytes:
        """Return file identifier descriptors (4/14.4), every third with implementation use."""
        data = b""
        for index, (name, characteristics, icb) in enumerate(entries):
            use = entity(b"*minprov") if index % 3 == 2 else b""
            body = pack("<HBB", 1, characteristics, len(name)) + long_ad(self.size, icb, self.structures.reference)
            body += pack("<H", len(use)) + use + name
            body += bytes(-len(body) % 4)
            data += self.descriptor(257, block_at(len(data)), body)
        return data

    def file_set(self, block: int, root: int) -> bytes:
        """Return a file set descriptor (4/14.1)."""
        body = TIMESTAMP + pack("<HHIIII", 3, 3, 1, 1, 0, 0) + CHARSPEC + dstring("minprov", 128) + CHARSPEC
        body += dstring("minprov", 32) + bytes(64) + long_ad(self.size, root, self.structures.reference)
        return self.descriptor(256, block, body + self.domain() + bytes(64))

    # Part 3: volume

    def domain(self) -> bytes:
        return entity(b"*OSTA UDF Compliant", pack("<HB", self.layout.revision, 3))  # UDF 2.1.5.3: write protected

    def metadata_map(self) -> bytes:
        """Write the metadata file and its mirror and return the partition map that names them (UDF 2.2.10, 2.2.13)."""
        image = self.structures.image(self.size)
        step = (self.layout.metadata_piece or 1) * self.size
        icbs = []
        for file_type in (METADATA, METADATA_MIRROR):
            icb = self.data.take()
            descriptors = b""
            for start in range(0, len(image), step):
                piece = image[start : start + step]
                first = self.data.take(len(piece) // self.size)
                self.data.put(first, piece, self.size)
                descriptors += pack("<II", len(piece), first)
            self.entry(icb, file_type, SHORT, len(image), descriptors, self.data)
            icbs.append(icb)
        name = entity(b"*UDF Metadata Partition", pack("<H", self.layout.revision))
        return pack("<BBH", 2, 64, 0) + name + pack("<HHIIIIHBxxxxx", 1, 0, *icbs, 0xFFFFFFFF, 1, 1, 1)

    def sequence(self, start: int, file_set: int, maps: list[bytes], partition_blocks: int) -> bytes:
        """Return a volume descriptor sequence (3/8.4.2)."""
        volume = pack("<II", 1, 0) + dstring("minprov", 32) + pack("<HHHHII", 1, 1, 2, 2, 1, 1)
        volume += dstring("0123456789abcdef minprov", 128) + 2 * CHARSPEC + bytes(16) + entity(b"*minprov") + TIMESTAMP
        volume += entity(b"*minprov") + bytes(64 + 4 + 2 + 22)
        logical = pack("<I", 2) + CHARSPEC + dstring("minprov", 128) + pack("<I", self.size) + self.domain()
        logical += long_ad(self.size, file_set, self.structures.reference) + pack("<II", sum(map(len, maps)), len(maps))
        logical += entity(b"*minprov") + bytes(128) + pack("<II", 2 * self.size, INTEGRITY) + b"".join(maps)
        partition = pack("<IHH", 3, 1, 0) + entity(b"+NSR02" if self.version == 2 else b"+NSR03") + bytes(128)
        partition += pack("<III", 1, PARTITION_START, partition_blocks) + entity(b"*minprov") + bytes(128 + 156)
        bodies = [(1, volume), (6, logical), (5, partition), (8, bytes(496))]
        return b"".join(
            self.descriptor(identifier, start + index, body).ljust(self.size, b"\0")
            for index, (identifier, body) in enumerate(bodies)
        )

    def integrity(self, maps: list[bytes], partition_blocks: int) -> bytes:
        """Return a logical volume integrity descriptor (3/10.10, UDF 2.2.6)."""
        sizes = pack(f"<{2 * len(maps)}I", *([0] * len(maps) + [partition_blocks] * len(maps)))
        readable_from = min(self.layout.revision, 0x0250)  # UDF 2.60 brought nothing that a reader must know
        use = entity(b"*minprov") + pack("<IIHHH", 0, 1, readable_from, self.layout.revision, self.layout.revision)
        body = TIMESTAMP + pack("<IIIQ24xII", 1, 0, 0, 1000, len(maps), len(use)) + sizes + use
        return self.descriptor(9, INTEGRITY, body)

    def whole(self, file_set: int, maps: list[bytes]) -> bytes:
        """Return the image: recognition sequence (2/8.3), anchors (3/10.2), descriptor sequences, partition."""
        partition = self.data.image(self.size)
        partition_blocks = len(partition) // self.size
        last = PARTITION_START + partition_blocks + 256
        image = bytearray((last + 1) * self.size)

        def put(block: int, data: bytes) -> None:
            image[block * self.size : block * self.size + len(data)] = data

        for index, identifier in enumerate((b"BEA01", b"NSR02" if self.version == 2 else b"NSR03", b"TEA01")):
            put(32768 // self.size + index * max(2048 // self.size, 1), b"\0" + identifier + b"\1")
        extent = SEQUENCE_BLOCKS * self.size
        for block in (256, last - 256, last):
            put(block, self.descriptor(2, block, pack("<IIII480x", extent, MAIN_SEQUENCE, extent, RESERVE_SEQUENCE)))
        for start in (MAIN_SEQUENCE, RESERVE_SEQUENCE):
            put(start, self.sequence(start, file_set, maps, partition_blocks))
        put(INTEGRITY, self.integrity(maps, partition_blocks))
        put(PARTITION_START, partition)
        return bytes(image)
