"""Archives of an initramfs: cpio's "newc" form (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason

MAGICS = (b"070701", b"070702")
TRAILER = "TRAILER!!!"
MAX_NAME = 4096
MAX_ENTRIES = 500_000
MAX_CONTENTS = 1 << 16
"""Bytes of one file's contents that are kept."""
_HEADER = 110
_ALIGNMENT = 4

Take = Callable[[int], bytes]
"""Returns the next bytes, fewer only at the end."""
Skip = Callable[[int], None]


class Entry(NamedTuple):
    """A file in an archive; contents only of those that were asked for."""

    name: str
    mode: int
    size: int
    contents: bytes | None


def read_archive(take: Take, skip: Skip, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """Yield the entries of one archive, up to and without its trailer.

    Raises:
        ProvisioningError: IMAGE_INVALID if it is damaged or has no end.

    """
    for _ in range(MAX_ENTRIES):
        header = take(_HEADER)
        if len(header) < _HEADER or header[:6] not in MAGICS:
            raise _damaged("it ends within an archive" if len(header) < _HEADER else "a header is damaged")
        try:
            fields = [int(header[start : start + 8], 16) for start in range(6, _HEADER, 8)]
        except ValueError as error:
            raise _damaged("a header is damaged") from error
        mode, size, name_size = fields[1], fields[6], fields[11]
        if not 0 < name_size <= MAX_NAME:
            raise _damaged("a name is longer than a path can be")
        name = take(name_size + -(_HEADER + name_size) % _ALIGNMENT)[: name_size - 1].decode(errors="replace")
        if name == TRAILER:
            return
        padded = size + -size % _ALIGNMENT
        name = name.removeprefix("./").lstrip("/")
        if size <= MAX_CONTENTS and wanted(name):
            yield Entry(name, mode, size, take(padded)[:size])
        else:
            skip(padded)
            yield Entry(name, mode, size, None)
    raise _damaged(f"it has more than {MAX_ENTRIES} files")


def _damaged(detail: str) -> ProvisioningError:
    return ProvisioningError(Reason.IMAGE_INVALID, structure="initramfs", detail=detail)
