"""Change descriptors in the image of a UDF volume, with or without making their tags fit again."""

from __future__ import annotations

from binascii import crc_hqx
from struct import pack, unpack_from

ANCHOR, VOLUME_DESCRIPTOR_POINTER, PARTITION, LOGICAL_VOLUME, TERMINATOR = 2, 3, 5, 6, 8
FILE_SET, FILE_IDENTIFIER, ALLOCATION_EXTENT, FILE_ENTRY, EXTENDED_FILE_ENTRY = 256, 257, 258, 261, 266


def sealed(descriptor: bytes | bytearray) -> bytes:
    """Return a descriptor with the CRC and the checksum that its bytes ask for: 3/7.2."""
    (length,) = unpack_from("<H", descriptor, 10)
    changed = bytearray(descriptor)
    changed[8:10] = pack("<H", crc_hqx(changed[16 : 16 + length], 0))
    changed[4] = (sum(changed[:4]) + sum(changed[5:16])) & 0xFF
    return bytes(changed)


def tags(volume: bytes | bytearray, identifier: int) -> list[int]:
    """Return the offset of each sound descriptor of a kind."""
    found = []
    at = volume.find(pack("<H", identifier))
    while at >= 0:
        if at % 4 == 0 and at + 16 <= len(volume):
            (length,) = unpack_from("<H", volume, at + 10)
            if length and volume[at : at + 16 + length] == sealed(volume[at : at + 16 + length]):
                found.append(at)
        at = volume.find(pack("<H", identifier), at + 1)
    return found


def edited(
    volume: bytes | bytearray, identifier: int, offset: int, value: bytes, *, only: int | None = None, seal: bool = True
) -> bytes:
    """Return the volume with a field changed in each descriptor of a kind, or in the one with this index."""
    changed = bytearray(volume)
    for index, at in enumerate(tags(volume, identifier)):
        if only in (None, index):
            changed[at + offset : at + offset + len(value)] = value
            if seal:
                end = at + 16 + unpack_from("<H", changed, at + 10)[0]
                changed[at:end] = sealed(changed[at:end])
    return bytes(changed)
