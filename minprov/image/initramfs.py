"""The files of an initramfs, listed as a stream: one archive after another, each as it is or compressed.

Nothing is unpacked to the disk. gzip is read here, other compressions by their programs, with the file itself as
standard input. How much is read, and for how long, is bounded: an archive of gigabytes of zeros is small on the disk.
"""

from __future__ import annotations

import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.cpio import MAGICS, read_archive
from minprov.limits import INITRAMFS_LIMIT
from minprov.machine.tools import PATH, find_tool

PIECE = 1 << 20
MAX_BYTES = 1 << 30
"""Of the files in one initramfs; those of distributions have 50 to 300 MiB."""
KEPT = (
    "etc/cmdline.d/",
    "etc/cmdline",
    "etc/initrd-release",
    "usr/lib/initrd-release",
    "usr/lib/dracut/build-parameter",
)

GZIP = b"\x1f\x8b"
PROGRAMS = {
    b"\xfd7zXZ\0": ["xz", "-dc", "--memlimit=256MiB"],
    b"\x28\xb5\x2f\xfd": ["zstd", "-dcq"],
    b"\x02\x21\x4c\x18": ["lz4", "-dcq"],
    b"\x04\x22\x4d\x18": ["lz4", "-dcq"],
    b"BZh": ["bzip2", "-dcq"],
    b"\x5d\0\0": ["xz", "-dc", "--format=lzma", "--memlimit=256MiB"],
}
"""By how their output begins (Linux, lib/decompress.c)."""


class Initramfs(NamedTuple):
    """What is in it."""

    contents: dict[str, str]
    """Of the few small files that say how it was made."""
    modules: frozenset[str]
    """The kernel's modules in it, compressed or not."""


def module_name(path: str) -> str:
    """Return what modprobe(8) calls a module's file, ``-`` and ``_`` being the same."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def read_initramfs(file: BinaryIO, offset: int = 0, size: int | None = None) -> Initramfs:
    """Return what is in the archives at `offset` of a file.

    Raises:
        ProvisioningError: IMAGE_INVALID if it is damaged, IMAGE_UNREADABLE if the program that reads it is not there.

    """
    modules: set[str] = set()
    is_empty = True
    contents: dict[str, str] = {}
    end = None if size is None else offset + size

    def collect(reader: _Reader) -> None:
        nonlocal is_empty
        for entry in read_archive(reader.take, reader.skip, lambda name: name.startswith(KEPT)):
            is_empty = False
            if ".ko" in entry.name:
                modules.add(module_name(entry.name))
            if entry.contents is not None:
                contents[entry.name] = entry.contents.decode(errors="replace")

    def pieces(start: int) -> Iterator[bytes]:
        file.seek(start)
        while piece := file.read(PIECE if end is None else min(PIECE, max(0, end - file.tell()))):
            yield piece

    reader = _Reader(pieces(offset))
    while reader.skip_zeros():
        head = reader.peek(6)
        if head in MAGICS:
            collect(reader)
            continue
        with _decompressed(file, offset + reader.position, head, pieces) as inner_pieces:
            inner = _Reader(inner_pieces)
            while inner.skip_zeros():
                collect(inner)
        break  # what follows a compressed archive, its decompressor has read as well
    if is_empty:
        raise ProvisioningError(Reason.IMAGE_INVALID, structure="initramfs", detail="there is no archive in it")
    return Initramfs(contents, frozenset(modules))


class _Reader:
    """Pieces of bytes, taken as they are asked for; what is skipped is not kept."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._start = 0
        self.position = 0
        self._deadline = time.monotonic() + INITRAMFS_LIMIT

    def peek(self, count: int) -> bytes:
        self._fill(count)
        return self._buffer[self._start : self._start + count]

    def take(self, count: int) -> bytes:
        taken = self.peek(count)
        self._advance(len(taken))
        return taken

    def skip(self, count: int) -> None:
        while count > 0:
            step = min(count, len(self._buffer) - self._start)
            if not step and not self._more():
                return
            self._advance(step)
            count -= step

    def skip_zeros(self) -> bool:
        """Go to the next byte that is not zero; tell whether there is one."""
        while True:
            rest = self._buffer[self._start :]
            stripped = rest.lstrip(b"\0")
            self._advance(len(rest) - len(stripped))
            if stripped:
                return True
            if not self._more():
                return False

    def _advance(self, count: int) -> None:
        self._start += count
        self.position += count

    def _fill(self, count: int) -> None:
        while len(self._buffer) - self._start < count and self._more():
            pass

    def _more(self) -> bool:
        if self.position > MAX_BYTES or time.monotonic() > self._deadline:
            raise ProvisioningError(
                Reason.IMAGE_INVALID, structure="initramfs", detail="it is larger than any real one"
            )
        piece = next(self._pieces, b"")
        self._buffer = self._buffer[self._start :] + piece
        self._start = 0
        return bool(piece)


@contextmanager
def _decompressed(
    file: BinaryIO, offset: int, head: bytes, pieces: Callable[[int], Iterator[bytes]]
) -> Iterator[Iterator[bytes]]:
    """Yield the decompressed pieces of what begins at `offset` with `head`."""
    if head.startswith(GZIP):
        yield gunzipped(pieces(offset))
        return
    argv = next((argv for magic, argv in PROGRAMS.items() if head.startswith(magic)), None)
    if argv is None:
        detail = f"an unknown form of archive begins at byte {offset}"
        raise ProvisioningError(Reason.IMAGE_INVALID, structure="initramfs", detail=detail)
    with piped(argv, file, offset) as output:
        yield output


@contextmanager
def piped(argv: list[str], file: BinaryIO, offset: int) -> Iterator[Iterator[bytes]]:
    """Yield what a decompressor makes of a file from `offset` on.

    Raises:
        ProvisioningError: IMAGE_UNREADABLE if it is not installed.

    """
    program = find_tool(argv[0])
    if program is None:
        raise ProvisioningError(Reason.IMAGE_UNREADABLE, detail=f"{argv[0]} is not installed, which decompresses it")
    file.seek(offset)  # the program shares the open file and its position
    process = subprocess.Popen(
        [program, *argv[1:]],
        stdin=file.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": PATH, "LANG": "C.UTF-8"},
    )
    with process:
        assert process.stdout is not None  # noqa: S101  # a pipe was asked for
        try:
            yield iter(lambda: process.stdout.read(PIECE), b"")  # type: ignore[union-attr]
        finally:
            process.kill()


def gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what gzip members, one after another, decompress to; what follows the last one ends it."""
    decoder = zlib.decompressobj(wbits=31)
    try:
        for piece in pieces:
            waiting = piece
            while waiting:
                if decoder.eof:
                    waiting = waiting.lstrip(b"\0")
                    if not waiting:
                        break
                    if not waiting.startswith(GZIP[:1]):
                        return
                    decoder = zlib.decompressobj(wbits=31)
                if data := decoder.decompress(waiting, PIECE):
                    yield data
                waiting = decoder.unconsumed_tail or decoder.unused_data
    except zlib.error as error:
        raise ProvisioningError(Reason.IMAGE_INVALID, structure="initramfs", detail=f"damaged gzip: {error}") from error
