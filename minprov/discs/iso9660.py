"""Read files from the root directory of an ISO 9660 volume: pure, over ``read(offset, size) -> bytes``.

Cited by clause of ECMA-119 (2nd edition), SUSP 1.12 and RRIP 1.12. The way to a file:

    volume descriptors (from sector 16) -> root directory record -> directory records -> the file's sections

The primary tree is read first, by its Rock Ridge names where it has them; files not found there are looked for in the
Joliet tree. Names of neither kind are compared as Linux shows them: in lower case, without version. ISO 9660 has no
checksums, so damage shows only where a structure leads nowhere. Every number is stored in both byte orders; the little-
endian one is used, for some mastering programs get the other wrong (Linux does likewise). It must not know of devices,
nor what the files mean.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.discs.volume import MAX_DIRECTORY, Contents, Disc, Read, corrupt, unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECTOR = 2048  # 6.1.2
FIRST_DESCRIPTOR = 16  # 6.2.1: sectors before it are the system area
MAX_DESCRIPTORS = 64
MAX_SECTIONS = 64
MAX_CONTINUATIONS = 32
XA_LENGTH = 14  # SUSP 5.3: on CD-ROM XA discs that many bytes precede the entries

PRIMARY, SUPPLEMENTARY, TERMINATOR = 1, 2, 255  # 8.1.1
JOLIET_ESCAPES = (b"%/@", b"%/C", b"%/E")  # Joliet: "SVD Escape Sequences Field"
NOT_A_FILE = 0x02 | 0x04  # 9.1.6: directory, associated file
MULTI_EXTENT = 0x80

_VOLUME = Struct("<88x32s8xH26x34s")  # 8.4, 8.5: escape sequences, block size, root directory record
_RECORD = Struct("<BBI4xI11xBBB4xB")  # 9.1: length, blocks of extended attributes, block, data length, flags,
#                                       file unit size, interleave gap, length of identifier
_CONTINUATION = Struct("<4xI4xI4xI")  # SUSP 5.1: block, offset, length


def read_files(read: Read, size: int, limits: Mapping[str, int]) -> Contents:
    """Return those files of the root directory that `limits` names, none longer than its limit.

    Raises:
        ProvisioningError: MEDIA_CORRUPT, MEDIA_UNSUPPORTED, or what `read` raised.

    """
    wanted = {name.lower(): name for name in limits} | {name: name for name in limits}
    files: dict[str, bytes] = {}
    trees = _trees(Disc(read, size))
    for tree in trees:
        for file in tree.files():
            name = wanted.get(file.name)
            if name is not None and name not in files:
                files[name] = tree.contents(file, limits[name])
        if len(files) == len(limits):
            break
    return Contents(files=files, volume="ISO 9660 with Joliet" if len(trees) > 1 else "ISO 9660")


def _trees(disc: Disc) -> list[_Tree]:
    """Return the primary directory tree and, where there is one, the Joliet tree: 6.7.1, 8."""
    primary = joliet = None
    for sector in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + MAX_DESCRIPTORS):
        descriptor = disc.read(sector * SECTOR, SECTOR)
        kind = descriptor[0]
        if descriptor[1:6] != b"CD001":
            raise corrupt("a volume descriptor has no standard identifier", sector=sector, clause="8.1.2")
        if kind == TERMINATOR:
            break
        escapes, block_size, root = _VOLUME.unpack_from(descriptor)
        if kind == PRIMARY and primary is None:
            primary = _Tree(disc, block_size, root, joliet=False)
        elif kind == SUPPLEMENTARY and joliet is None and escapes.startswith(JOLIET_ESCAPES):
            joliet = _Tree(disc, block_size, root, joliet=True)
    if primary is None:
        raise corrupt("no primary volume descriptor", clause="6.7.1.1")
    return [primary, joliet] if joliet else [primary]


class _File(NamedTuple):
    """A file: its name, its sections as (first block, bytes), and the feature that keeps it from being read, if any."""

    name: str
    sections: tuple[tuple[int, int], ...]
    obstacle: str | None


class _Tree(NamedTuple):
    """A directory tree: the primary one or the Joliet one."""

    disc: Disc
    block_size: int
    root: bytes
    joliet: bool

    def files(self) -> Iterator[_File]:
        """Yield the files of the root directory: 6.8, 9.1."""
        skip: int | None = None  # where Rock Ridge starts in each record's system use area; None without Rock Ridge
        sections: tuple[tuple[int, int], ...] = ()
        for index, record in enumerate(self._records()):
            _, attributes, block, length, flags, unit, gap, name_length = _RECORD.unpack_from(record)
            identifier = record[_RECORD.size :][:name_length]
            system_use = record[_RECORD.size + name_length + (name_length + 1) % 2 :]  # 9.1.12: starts at an even byte
            if index == 0 and not self.joliet:
                skip = _rock_ridge_start(system_use)
            if flags & NOT_A_FILE:
                continue
            sections = (*sections, (block + attributes, length))  # 9.1.3: extended attributes precede the data
            if len(sections) > MAX_SECTIONS:
                raise corrupt("a file in more sections than any real one", limit=MAX_SECTIONS, clause="9.1.6")
            if flags & MULTI_EXTENT:
                continue
            name, obstacle = (None, None) if skip is None else self._rock_ridge(system_use[skip:])
            if unit or gap:
                obstacle = "interleaved file"  # 6.4.3
            yield _File(name or self._plain_name(identifier), sections, obstacle)
            sections = ()
        if sections:
            raise corrupt("a file without its last section", clause="9.1.6")

    def contents(self, file: _File, limit: int) -> bytes:
        """Return a file's bytes: 6.5."""
        if file.obstacle:
            raise unsupported(file.obstacle, name=file.name)
        length = sum(length for _, length in file.sections)
        if length > limit:
            raise unsupported("a file larger than any on provisioning media", length=length, limit=limit)
        # An empty section may be said to lie anywhere.
        return b"".join(self.disc.read(block * self.block_size, length) for block, length in file.sections if length)

    def _records(self) -> Iterator[bytes]:
        """Yield the directory records of the root directory; none crosses the end of a sector: 6.8.1.1."""
        _, attributes, block, length, *_ = _RECORD.unpack_from(self.root)
        if length > MAX_DIRECTORY:
            raise corrupt("the root directory is larger than any real one", length=length, limit=MAX_DIRECTORY)
        directory = self.disc.read((block + attributes) * self.block_size, length)
        for start in range(0, length, SECTOR):
            sector = directory[start : start + SECTOR]
            while sector and sector[0]:
                record = sector[: sector[0]]
                if len(record) < max(sector[0], _RECORD.size) or len(record) < _RECORD.size + record[32]:
                    raise corrupt("a directory record does not fit", offset=start, clause="9.1")
                yield record
                sector = sector[len(record) :]

    def _plain_name(self, identifier: bytes) -> str:
        """Return a file's name without its version: 7.5.1. A Joliet name keeps its case."""
        if self.joliet:
            return identifier.decode("utf-16-be", "replace").partition(";")[0]
        return identifier.decode("latin-1").lower().partition(";")[0].rstrip(".")

    def _rock_ridge(self, area: bytes) -> tuple[str | None, str | None]:
        """Return the alternate name and the obstacle that a system use area tells of: SUSP 4.1, RRIP 4.1.4."""
        name, obstacle = b"", None
        for _ in range(MAX_CONTINUATIONS):
            following: tuple[int, int, int] | None = None
            start = 0
            while start + 4 <= len(area) and area[start + 2] >= 4:
                entry = area[start : start + area[start + 2]]
                start += len(entry)
                match entry[:2]:
                    case b"NM":
                        name += entry[5:]
                    case b"CE" if len(entry) >= _CONTINUATION.size:
                        following = _CONTINUATION.unpack_from(entry)
                    case b"ZF":
                        obstacle = "zisofs compression"
                    case b"SF":
                        obstacle = "Rock Ridge sparse file"
                    case b"ST":
                        break
            if following is None:
                return name.decode("utf-8", "replace") or None, obstacle
            block, offset, length = following
            if length > SECTOR:
                raise corrupt("a continuation area is larger than a sector", length=length, clause="SUSP 5.1")
            area = self.disc.read(block * self.block_size + offset, length)
        raise corrupt("a system use area has no end", limit=MAX_CONTINUATIONS, clause="SUSP 5.1")


def _rock_ridge_start(system_use: bytes) -> int | None:
    """Return where the entries start in each system use area, if the root's has the SP entry that says so: SUSP 5.3."""
    for start in (0, XA_LENGTH):
        entry = system_use[start : start + 7]
        if entry.startswith(b"SP\x07\x01\xbe\xef"):
            return entry[6]
    return None
