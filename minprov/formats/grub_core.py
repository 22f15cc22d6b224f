"""What GRUB's own program carries: a configuration, and a disk in memory that may have another one.

For EFI they stand in the section ``mods``, uncompressed: one object after another, each with its type and its length
(GRUB: include/grub/kernel.h, util/mkimage.c). The disk is a tar archive, as grub-mkstandalone makes it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

SECTION = "mods"
_MAGIC = b"mimg"
_INFO = struct.Struct("<4sIQQ")  # magic, padding, where the objects begin, and their length with this
_OBJECT = struct.Struct("<II")
_MEMDISK, _CONFIG = 1, 2
_BLOCK = 512
_REGULAR = (b"0", b"\0")


def parse_configurations(section: bytes) -> list[str]:
    """Return the configurations that are in the section, the embedded one first; none if it is damaged."""
    if len(section) < _INFO.size or not section.startswith(_MAGIC):
        return []
    _, _, place, end = _INFO.unpack_from(section)
    configurations: list[bytes] = []
    while place + _OBJECT.size <= min(end, len(section)):
        kind, size = _OBJECT.unpack_from(section, place)
        contents = section[place + _OBJECT.size : place + size]
        if kind == _CONFIG:
            configurations.insert(0, contents.partition(b"\0")[0])
        elif kind == _MEMDISK:
            configurations += tar_files(contents, "grub.cfg")
        place += max(size, _OBJECT.size)
    return [configuration.decode(errors="replace") for configuration in configurations]


def tar_files(archive: bytes, name: str) -> Iterator[bytes]:
    """Yield the regular files of that name in a tar archive (POSIX ustar), until it ends or is damaged."""
    place = 0
    while len(header := archive[place : place + _BLOCK]) == _BLOCK:
        path = header[:100].partition(b"\0")[0].decode(errors="replace")
        digits = header[124:136].strip(b" \0")
        if not path or not digits.isdigit() or digits.strip(b"01234567"):
            return
        size = int(digits, 8)
        place += _BLOCK
        if header[156:157] in _REGULAR and path.rpartition("/")[2] == name:
            yield archive[place : place + size]
        place += -(-size // _BLOCK) * _BLOCK
