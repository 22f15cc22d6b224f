"""What goes into the volumes of the tests: files whose sizes and names are where something changes, and layouts."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from minprov.errors import ProvisioningError, Reason
from tests.discs.udf_writer import LONG, SHORT, Layout

LARGEST = 1 << 20


def content(name: str, size: int) -> bytes:
    """Return bytes that differ from file to file and from line to line, and compress well."""
    seed = hashlib.sha256(name.encode()).hexdigest()[:4].encode()
    return b"".join(b"%s%011d\n" % (seed, line) for line in range(size // 16 + 1))[:size]


DRIVE_FILES = {
    "ovf-env.xml": content("ovf-env.xml in a drive", 3000),
    "CustomData.bin": content("CustomData.bin", 65535),
}


def sample_files(block_size: int) -> dict[str, bytes]:
    """Return files by name: sizes around a file entry, a block and 64 KiB; names of both widths."""
    capacity = block_size - 176  # of a file entry; an extended one has 40 bytes less
    sizes = {0, 1, capacity - 40, capacity - 39, capacity, capacity + 1, block_size - 1, block_size, block_size + 1}
    sizes |= {65535, 65536, 65537, 200_000}
    names = {f"size-{size}": size for size in sorted(sizes)}
    names |= dict.fromkeys(
        ("ovf-env.xml", "CustomData.bin", "naïve", "日本語.txt", "\N{OPTICAL DISC}", "n" * 254), 3000
    )
    return {name: content(name, size) for name, size in names.items()}


def _layouts() -> dict[str, Layout]:
    plain = Layout(deleted=("ovf-env.xml", "gone"))
    layouts = {f"{size}": replace(plain, block_size=size) for size in (512, 1024, 2048, 4096)}
    layouts |= {
        f"{revision >> 8:x}.{revision & 0xFF:02x}": replace(plain, revision=revision, extended=True)
        for revision in (0x0102, 0x0150, 0x0200, 0x0201, 0x0250, 0x0260)
    }
    scattered = replace(plain, embed=False, piece=1, chain=20, scatter=1)
    layouts |= {
        "short, scattered and chained": replace(scattered, allocation=SHORT),
        "long, scattered and chained": replace(scattered, allocation=LONG, extended=True),
        "short, scattered and chained, 512": replace(scattered, allocation=SHORT, block_size=512),
        "metadata partition": replace(plain, revision=0x0250, metadata_piece=1000),
        "metadata partition in pieces": replace(scattered, revision=0x0260, metadata_piece=2, extended=True),
        "metadata partition in pieces, 512": replace(scattered, revision=0x0250, metadata_piece=10, block_size=512),
    }
    return layouts


LAYOUTS = _layouts()


class Image:
    """An image to read from: it keeps account, and the bytes of the ranges in `bad` cannot be read."""

    def __init__(self, data: bytes | bytearray, *, bad: list[range] | None = None) -> None:
        self.data = bytes(data)
        self.bad = bad or []
        self.reads: list[tuple[int, int]] = []

    def __call__(self, offset: int, size: int) -> bytes:
        self.reads.append((offset, size))
        if any(offset < bad.stop and bad.start < offset + size for bad in self.bad):
            raise ProvisioningError(Reason.MEDIA_UNREADABLE, offset=offset)
        return self.data[offset : offset + size]

    @property
    def bytes_read(self) -> int:
        return sum(size for _, size in self.reads)
