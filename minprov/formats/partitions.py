"""Partition tables: MBR, GPT, and GPT with an MBR that is more than protective ("hybrid").

Pure functions over ``read(offset, length) -> bytes``, which returns what there is of it, and nothing beyond the end of
the disk. Whatever a hostile table says, 4 MiB are read and 1,024 partitions returned at most. (UEFI 2.10 §5.2 and §5.3;
logical partitions are the chain of extended boot records as Linux follows it, block/partitions/msdos.c.)
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable
from typing import TypeAlias

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.disk_image import BOOT_SIGNATURE

Read: TypeAlias = Callable[[int, int], bytes]

SECTOR = 512
SECTOR_SIZES = (512, 4096)
MAX_ENTRIES = 1024
MAX_LOGICAL = 128

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
TYPE_NAMES = {
    ESP: "EFI system",
    BIOS_BOOT: "BIOS boot",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": "extended boot loader",
    "0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root (x86-64)",
    "b921b045-1df0-41c3-af44-4c6f280d3fae": "Linux root (arm64)",
    "8484680c-9521-48c6-9c11-b0720656f69e": "Linux /usr (x86-64)",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
    "e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
    "a19d880f-05fc-4d3b-a006-743f0f84911e": "Linux RAID",
    "82": "Linux swap",
    "83": "Linux",
    "8e": "Linux LVM",
    "ef": "EFI system",
    "fd": "Linux RAID",
}
"""By the type that GPT (a GUID) or MBR (two hexadecimal digits) has for it."""

_PROTECTIVE = 0xEE
_EXTENDED = (0x05, 0x0F, 0x85)
_ACTIVE = 0x80
_MBR_ENTRY = struct.Struct("<B3xB3xII")
_MBR_TABLE = 446
_DISK_SIGNATURE = slice(440, 444)
_GPT_SIGNATURE = b"EFI PART"
_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_CRC = slice(16, 20)
_LEGACY_BOOTABLE = 1 << 2  # UEFI 2.10 §5.3.3: for a loader of the BIOS


class Partition(NamedTuple):
    """One partition, in bytes from the start of the disk."""

    number: int
    start: int
    size: int
    type: str
    uuid: str | None = None
    name: str = ""
    bootable: bool = False

    @property
    def is_esp(self) -> bool:
        """Tell whether UEFI looks for a loader on it."""
        return self.type in (ESP, "ef")


class PartitionTable(NamedTuple):
    """What a disk says about its partitions."""

    kind: str
    """``mbr``, ``gpt`` or ``hybrid``."""
    partitions: tuple[Partition, ...]
    sector_size: int = SECTOR
    has_boot_code: bool = False
    """The first sector has a program, which a BIOS starts."""
    faults: tuple[str, ...] = ()
    """What contradicts the disk or the standard, in words."""


class Write(NamedTuple):
    """Bytes to write to a disk."""

    offset: int
    data: bytes


class _Header(NamedTuple):
    signature: bytes
    revision: int
    header_size: int
    crc: int
    reserved: int
    my_lba: int
    alternate_lba: int
    first_usable: int
    last_usable: int
    disk: bytes
    entries_lba: int
    entry_count: int
    entry_size: int
    entries_crc: int

    @property
    def entries_length(self) -> int:
        return self.entry_count * self.entry_size


def parse_partition_table(read: Read, size: int) -> PartitionTable | None:
    """Return the partition table of a disk of `size` bytes; None if it has none.

    Raises:
        ProvisioningError: IMAGE_INVALID for a GPT of which neither copy can be used.

    """
    first = read(0, SECTOR)
    if len(first) < SECTOR or first[-2:] != BOOT_SIGNATURE:
        return None
    # A file system's own boot sector has the signature too, and in the place of the table whatever it likes.
    entries = _mbr_entries(first)
    has_boot_code = any(first[:440])
    if any(kind == _PROTECTIVE for _, kind, _, _ in entries):
        table = _parse_gpt(read, size)
        others = any(kind not in (0, _PROTECTIVE) for _, kind, _, _ in entries)
        return table._replace(kind="hybrid" if others else "gpt", has_boot_code=has_boot_code)
    if any(active not in (0, _ACTIVE) for active, _, _, _ in entries) or not any(kind for _, kind, _, _ in entries):
        return None
    signature = int.from_bytes(first[_DISK_SIGNATURE], "little")
    partitions = tuple(
        # As the kernel names them (block/partitions/msdos.c); a disk without a signature has no such names.
        part._replace(uuid=f"{signature:08x}-{part.number:02x}" if signature else None)
        for part in _mbr_partitions(read, entries)
    )
    return PartitionTable("mbr", partitions, has_boot_code=has_boot_code, faults=tuple(_overreach(partitions, size)))


def move_backup(read: Read, old_size: int, size: int) -> tuple[Write, ...]:
    """Return what to write so that a disk that grew from `old_size` to `size` bytes has its GPT's backup at its end.

    A disk without a GPT, and one whose backup is in its place, need nothing.

    Raises:
        ProvisioningError: IMAGE_INVALID if the GPT is damaged or needs more room than there is.

    """
    table = parse_partition_table(read, old_size)
    if table is None or table.kind == "mbr":
        return ()
    sector = table.sector_size
    last = size // sector - 1
    header = _usable_header(read, 1, sector)
    if header is None:
        raise _damaged("its first header is damaged", "repair it with `sgdisk --verify` and `gdisk`, option r")
    if header.alternate_lba == last and _usable_header(read, last, sector):
        return ()
    entries = read(header.entries_lba * sector, header.entries_length)
    room = -(-len(entries) // sector)
    if any(part.start + part.size > (last - room) * sector for part in table.partitions):
        raise _damaged("a partition reaches beyond the end of the disk, or into the backup's place")
    moved = header._replace(alternate_lba=last, last_usable=last - room - 1)
    backup = moved._replace(my_lba=last, alternate_lba=1, entries_lba=last - room)
    return (
        Write(0, _protective_mbr(read(0, SECTOR), last)),
        Write(sector, _packed(moved, read(sector, sector))),
        Write((last - room) * sector, entries.ljust(room * sector, b"\0")),
        Write(last * sector, _packed(backup, bytes(sector))),
    )


def _mbr_entries(sector: bytes) -> list[tuple[int, int, int, int]]:
    """Return (active, type, first sector, sectors) of the four entries."""
    return [_MBR_ENTRY.unpack_from(sector, _MBR_TABLE + index * _MBR_ENTRY.size) for index in range(4)]


def _mbr_partitions(read: Read, entries: list[tuple[int, int, int, int]]) -> list[Partition]:
    partitions = []
    chain = None
    for number, (active, kind, start, count) in enumerate(entries, 1):
        if kind in _EXTENDED:
            chain = chain or start
        elif kind and count:
            partitions.append(_mbr_partition(number, start, count, kind, active))
    number, record, seen = 5, chain, set[int]()
    while chain and record and record not in seen and len(seen) < MAX_LOGICAL:
        seen.add(record)
        sector = read(record * SECTOR, SECTOR)
        if len(sector) < SECTOR or sector[-2:] != BOOT_SIGNATURE:
            break
        following = None
        for active, kind, start, count in _mbr_entries(sector)[:2]:
            if kind in _EXTENDED:
                following = chain + start  # counts from the extended partition, a logical one from its own record
            elif kind and count:
                partitions.append(_mbr_partition(number, record + start, count, kind, active))
                number += 1
        record = following
    return partitions


def _mbr_partition(number: int, start: int, count: int, kind: int, active: int) -> Partition:
    return Partition(number, start * SECTOR, count * SECTOR, f"{kind:02x}", bootable=active == _ACTIVE)


def _parse_gpt(read: Read, size: int) -> PartitionTable:
    faults = []
    for sector in SECTOR_SIZES:
        last = size // sector - 1
        first, backup = _usable_header(read, 1, sector), _usable_header(read, last, sector)
        if first is None and backup is None:
            continue
        if first is None:
            faults.append("the first GPT header is damaged; its backup was read")
        elif first.alternate_lba != last:
            faults.append("the backup GPT header is not at the end of the disk")
        elif backup is None:
            faults.append("the backup GPT header is damaged")
        header = first or backup
        assert header is not None  # noqa: S101  # one of them is there
        partitions = _gpt_partitions(read(header.entries_lba * sector, header.entries_length), header, sector)
        faults += _overreach(partitions, size)
        return PartitionTable("gpt", tuple(partitions), sector_size=sector, faults=tuple(faults))
    raise _damaged("neither its header nor the backup can be used")


def _usable_header(read: Read, lba: int, sector: int) -> _Header | None:
    """Return the header at `lba` if its own checksum and that of its entries hold."""
    if lba < 1:
        return None
    data = read(lba * sector, sector)
    if len(data) < _GPT_HEADER.size or not data.startswith(_GPT_SIGNATURE):
        return None
    header = _Header(*_GPT_HEADER.unpack_from(data))
    sound = (
        _GPT_HEADER.size <= header.header_size <= sector
        and header.crc == _header_crc(data[: header.header_size])
        and header.my_lba == lba
        and header.entry_size >= _GPT_ENTRY.size
        and header.entry_size <= SECTOR
        and 0 < header.entry_count <= MAX_ENTRIES
    )
    if not sound:
        return None
    entries = read(header.entries_lba * sector, header.entries_length)
    complete = len(entries) == header.entries_length
    return header if complete and zlib.crc32(entries) == header.entries_crc else None


def _gpt_partitions(entries: bytes, header: _Header, sector: int) -> list[Partition]:
    partitions = []
    for index in range(header.entry_count):
        kind, identity, start, end, attributes, name = _GPT_ENTRY.unpack_from(entries, index * header.entry_size)
        if any(kind) and end >= start:
            partitions.append(
                Partition(
                    number=index + 1,
                    start=start * sector,
                    size=(end - start + 1) * sector,
                    type=str(uuid.UUID(bytes_le=kind)),
                    uuid=str(uuid.UUID(bytes_le=identity)),
                    name=name.decode("utf-16-le", "replace").partition("\0")[0],
                    bootable=bool(attributes & _LEGACY_BOOTABLE),
                )
            )
    return partitions


def _overreach(partitions: tuple[Partition, ...] | list[Partition], size: int) -> list[str]:
    return [
        f"partition {part.number} ends {part.start + part.size - size} bytes beyond the end of the disk"
        for part in partitions
        if part.start + part.size > size
    ]


def _header_crc(header: bytes) -> int:
    return zlib.crc32(header[: _CRC.start] + bytes(4) + header[_CRC.stop :])


def _packed(header: _Header, sector: bytes) -> bytes:
    """Return a header's sector with its checksum; what follows the header stays."""
    data = _GPT_HEADER.pack(*header) + sector[_GPT_HEADER.size :]
    return _GPT_HEADER.pack(*header._replace(crc=_header_crc(data[: header.header_size]))) + sector[_GPT_HEADER.size :]


def _protective_mbr(sector: bytes, last: int) -> bytes:
    """Let the protective entry cover the disk, if it did; in a hybrid table it ends before the other partitions."""
    entries = _mbr_entries(sector)
    kinds = [kind for _, kind, _, _ in entries if kind]
    if kinds != [_PROTECTIVE]:
        return sector
    index = next(index for index, entry in enumerate(entries) if entry[1] == _PROTECTIVE)
    place = _MBR_TABLE + index * _MBR_ENTRY.size + 12
    return sector[:place] + min(last, 0xFFFFFFFF).to_bytes(4, "little") + sector[place + 4 :]


def _damaged(detail: str, hint: str | None = None) -> ProvisioningError:
    return ProvisioningError(Reason.IMAGE_INVALID, structure="GPT", detail=detail, hint=hint)
