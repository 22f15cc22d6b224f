"""Sections of a PE file, of which a unified kernel image has its parts (UAPI.5; Microsoft's PE format)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from minprov.definitions import NamedTuple

_PE_OFFSET = 0x3C
_COFF = struct.Struct("<4sHHIIIHH")
_SECTION = struct.Struct("<8sIIII16x")
_SYMBOL_SIZE = 18  # the table of strings, with the names that are longer than eight bytes, follows the symbols
MAX_NAME = 32
MAX_SECTIONS = 96  # the loader's own limit
_CERTIFICATES = 4  # index of the table of signatures among the data directories
_PLUS = 0x20B
MACHINES = {0x8664: "x64", 0xAA64: "Arm64"}


class Section(NamedTuple):
    """Where a section's contents are in the file."""

    offset: int
    size: int


class PeFile(NamedTuple):
    """What the headers say."""

    architecture: str | None
    certificates: Section | None
    """Where the signatures are; None without one. Whether they hold is not looked at."""
    sections: dict[str, Section]


def parse_pe(read: Callable[[int, int], bytes]) -> PeFile | None:
    """Return the headers of a PE file, read by ``read(offset, length)``; None if it is none."""
    start = read(0, _PE_OFFSET + 4)
    if len(start) < _PE_OFFSET + 4 or start[:2] != b"MZ":
        return None
    offset = int.from_bytes(start[_PE_OFFSET:], "little")
    coff = read(offset, _COFF.size)
    if len(coff) < _COFF.size:
        return None
    signature, machine, count, _, symbols, symbol_count, optional_size, _ = _COFF.unpack(coff)
    if signature != b"PE\0\0" or count > MAX_SECTIONS:
        return None
    optional = read(offset + _COFF.size, optional_size)
    directories = 112 if optional[:2] == _PLUS.to_bytes(2, "little") else 96
    entry = optional[directories + 8 * _CERTIFICATES :][:8]
    sections: dict[str, Section] = {}
    for index in range(count):
        raw = read(offset + _COFF.size + optional_size + index * _SECTION.size, _SECTION.size)
        if len(raw) < _SECTION.size:
            return None
        name, virtual_size, _, raw_size, pointer = _SECTION.unpack(raw)
        size = min(virtual_size, raw_size) if virtual_size else raw_size
        if name.startswith(b"/") and (place := name[1:].rstrip(b"\0")).isdigit():
            name = read(symbols + symbol_count * _SYMBOL_SIZE + int(place), MAX_NAME).partition(b"\0")[0]
        sections.setdefault(name.rstrip(b"\0").decode("ascii", "replace"), Section(pointer, size))
    certificates = Section(int.from_bytes(entry[:4], "little"), int.from_bytes(entry[4:], "little"))
    return PeFile(MACHINES.get(machine), certificates if certificates.size else None, sections)
