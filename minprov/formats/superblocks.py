"""What a partition holds, told by its superblock: a file system, or a layer under one (LVM, LUKS, md, swap).

Pure, over ``read(offset, length) -> bytes``; some twenty short reads, whatever is there. Offsets and magic numbers are
those of libblkid's probes (util-linux, libblkid/src/superblocks).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple

if TYPE_CHECKING:
    from minprov.formats.partitions import Read

LAYERS = frozenset({"LUKS", "LVM", "md"})
"""What is no file system itself and may have one inside."""


class Superblock(NamedTuple):
    """The kind of contents, by the name that mount(8) has for a file system, and what an fstab can call it by."""

    kind: str
    uuid: str | None = None
    label: str | None = None


class _Place(NamedTuple):
    kind: str
    offset: int
    magic: bytes
    uuid: int | None = None
    label: tuple[int, int] | None = None


# Layers come before file systems: the first blocks of a member of an array can look like what the array holds.
_PLACES = (
    _Place("md", 0, bytes.fromhex("fc4e2ba901000000"), 16),
    _Place("md", 4096, bytes.fromhex("fc4e2ba901000000"), 4096 + 16),
    _Place("xfs", 0, b"XFSB", 32, (108, 12)),
    _Place("squashfs", 0, b"hsqs"),
    _Place("ext4", 1024 + 56, b"\x53\xef", 1024 + 104, (1024 + 120, 16)),
    _Place("erofs", 1024, bytes.fromhex("e2e1f5e0"), 1024 + 48, (1024 + 64, 16)),
    _Place("f2fs", 1024, bytes.fromhex("1020f5f2"), 1024 + 108),
    _Place("btrfs", 0x10000 + 64, b"_BHRfS_M", 0x10000 + 32, (0x10000 + 299, 256)),
    _Place("swap", 4086, b"SWAPSPACE2", 1036, (1052, 16)),
    _Place("ntfs", 3, b"NTFS    "),
)
_LUKS = (b"LUKS\xba\xbe", 168)
_LVM_SECTORS = 4
_MD_MAGIC = bytes.fromhex("fc4e2ba9")
_FAT = ((82, b"FAT32", 67, 71), (54, b"FAT1", 39, 43))  # magic's place, magic, serial number, label


def recognise_contents(read: Read, size: int) -> Superblock | None:
    """Return what `size` bytes begin with, or None if it is nothing known."""
    luks, luks_uuid = _LUKS
    if read(0, len(luks)) == luks:
        return Superblock("LUKS", _text(read(luks_uuid, 40)))
    for sector in range(_LVM_SECTORS):
        label = read(sector * 512, 64)
        if label.startswith(b"LABELONE") and label[24:32] == b"LVM2 001":
            return Superblock("LVM", _lvm_uuid(label[32:64]))
    # Versions 0.90 and 1.0 of md's metadata stand at the end (md(4)).
    for offset in ((size & ~0xFFFF) - 0x10000, (size - 0x2000) & ~0xFFF):
        if offset > 0 and read(offset, 4) == _MD_MAGIC:
            return Superblock("md")
    for place in _PLACES:
        if read(place.offset, len(place.magic)) == place.magic:
            return Superblock(
                place.kind,
                None if place.uuid is None else _uuid(read(place.uuid, 16)),
                None if place.label is None else _text(read(*place.label)),
            )
    return _fat(read(0, 512))


def _fat(sector: bytes) -> Superblock | None:
    if sector[510:512] != b"\x55\xaa":
        return None
    for place, magic, serial, label in _FAT:
        if sector[place:].startswith(magic):
            number = int.from_bytes(sector[serial : serial + 4], "little")
            return Superblock("vfat", f"{number >> 16:04X}-{number & 0xFFFF:04X}", _text(sector[label : label + 11]))
    return None


def _uuid(data: bytes) -> str | None:
    return str(uuid.UUID(bytes=data)) if len(data) == 16 and any(data) else None


def _lvm_uuid(data: bytes) -> str | None:
    """Return a UUID as LVM shows it: 32 letters and digits, with hyphens between them."""
    text = _text(data)
    if text is None or len(text) != 32:
        return text
    return "-".join((text[:6], *(text[place : place + 4] for place in range(6, 26, 4)), text[26:]))


def _text(data: bytes) -> str | None:
    text = data.partition(b"\0")[0].decode("utf-8", "replace").strip()
    return text or None
