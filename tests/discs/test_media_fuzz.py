"""Whatever is on a disc, reading it gives a value or a ProvisioningError, soon and in little memory."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from functools import cache
from struct import pack, unpack_from
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.discs import iso9660, udf
from minprov.errors import ProvisioningError, Reason
from tests.discs import fuzz_media
from tests.discs.media_samples import Image, content
from tests.discs.test_iso9660 import write_volume as write_iso9660
from tests.discs.udf_surgery import ALLOCATION_EXTENT, ANCHOR, edited, sealed, tags
from tests.discs.udf_writer import CONTINUATION, LONG, PARTITION_START, Layout, descriptor
from tests.discs.udf_writer import write_volume as write_udf

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from minprov.discs.volume import Contents

MUTANTS = 1000  # of each seed
LIMITS = {"ovf-env.xml": 1 << 20, "CustomData.bin": 128 << 10}
FILES = {"ovf-env.xml": content("ovf-env.xml", 1500), "CustomData.bin": bytes(9000) + b"end", "é": b"", "Ā": b""}


def udf_seed(layout: Layout) -> bytes:
    """Return a volume without a reserve sequence, so that what happens to the main one matters."""
    return edited(write_udf(FILES, layout), ANCHOR, 24, bytes(8))


SEEDS: dict[str, tuple[Callable[..., Contents], Callable[[], bytes]]] = {
    "UDF": (udf.read_files, lambda: udf_seed(Layout(deleted=("gone",)))),
    "UDF in short extents": (
        udf.read_files,
        lambda: udf_seed(Layout(block_size=512, piece=1, chain=3, embed=False)),
    ),
    "UDF in long extents": (
        udf.read_files,
        lambda: udf_seed(Layout(block_size=512, piece=2, chain=3, embed=False, allocation=LONG, extended=True)),
    ),
    "UDF with a metadata partition": (
        udf.read_files,
        lambda: udf_seed(Layout(block_size=512, revision=0x0250, metadata_piece=2, extended=True)),
    ),
    "ISO 9660": (iso9660.read_files, lambda: write_iso9660(FILES)),
    "Joliet": (iso9660.read_files, lambda: write_iso9660(FILES, joliet=3)),
    "Rock Ridge": (iso9660.read_files, lambda: write_iso9660({**FILES, "n" * 250: b""}, rock_ridge="1.12")),
}


@cache
def seed(name: str) -> tuple[bytes, list[int], list[tuple[int, int]]]:
    """Return an image, the offsets of the bytes worth changing, and its descriptors as (start, end)."""
    reader, write = SEEDS[name]
    image = Image(write())
    reader(image, len(image.data), LIMITS)
    read = {byte for offset, size in image.reads for byte in range(offset, offset + min(size, 512))}
    worth = [at for at in sorted(read) if any(image.data[at - 3 : at + 4]) and image.data[at] != ord(" ")]
    starts = [at for identifier in (2, 5, 6, 256, 257, 258, 261, 266) for at in tags(image.data, identifier)]
    ends = [at + 16 + unpack_from("<H", image.data, at + 10)[0] for at in starts]
    return image.data, worth, list(zip(starts, ends, strict=True))


def mutant(name: str, chance: random.Random) -> bytes:
    """Return the image with a few bytes changed where the reader looks, its tags mostly made to fit again."""
    data, worth, descriptors = seed(name)
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 4, 8))):
        at, other = chance.choice(worth), chance.choice(worth)
        size = chance.choice((1, 1, 2, 4, 8, 16))
        value = chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size), data[other : other + size]))
        changed[at : at + len(value)] = value
        if chance.random() < 0.9:
            for start, end in descriptors:
                if start <= at < end:
                    changed[start:end] = sealed(changed[start:end])
    return bytes(changed)


def outcome(reader: Callable[..., Contents], image: bytes) -> Contents | ProvisioningError:
    started = time.thread_time()
    try:
        result: Contents | ProvisioningError = reader(lambda at, size: image[at : at + size], len(image), LIMITS)
    except ProvisioningError as error:
        assert error.reason in (Reason.MEDIA_CORRUPT, Reason.MEDIA_UNSUPPORTED)
        result = error
    assert time.thread_time() - started < 1
    return result


@pytest.mark.parametrize("name", SEEDS)
def test_a_mutated_volume_is_read_or_refused(name: str) -> None:
    chance = random.Random(name)
    outcomes = [outcome(SEEDS[name][0], mutant(name, chance)) for _ in range(MUTANTS)]
    refused = sum(isinstance(one, ProvisioningError) for one in outcomes)
    assert MUTANTS * 0.1 < refused < MUTANTS * 0.9, "mutants that are all alike test nothing"


@pytest.mark.parametrize("reader", [udf.read_files, iso9660.read_files])
@given(data=st.binary(max_size=4096), at=st.sampled_from([0, 16 * 2048, 256 * 512, 256 * 2048]))
def test_any_bytes_are_read_or_refused(reader: Callable[..., Contents], data: bytes, at: int) -> None:
    outcome(reader, bytes(at) + data)


def test_what_the_fuzzer_found_worth_keeping_is_read_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udf, "_verify", fuzz_media.without_tag_check)
    corpus = fuzz_media.inputs()
    assert len(corpus) > 100
    for data in corpus:
        fuzz_media.run(data)


# --- the dearest volumes ----------------------------------------------------------------------------------------------

CHEAP = {f"{number:05}": b"" for number in range(3000)}


def scattered_metadata() -> bytes:
    """Return a volume whose directory has to be looked for in as many pieces as a metadata file may have."""
    names = {f"{number:04}" + "n" * 200: b"" for number in range(800)}
    volume = write_udf(names, Layout(revision=0x0250, metadata_piece=4, embed=False, piece=1, chain=100))
    assert len(volume) // 2048 > 4 * 220
    return volume


def endless_chain() -> bytes:
    """Return a volume whose root directory's extents are said to continue where they are said to continue."""
    volume = bytearray(write_udf(CHEAP, Layout(block_size=512, piece=1, chain=20)))
    for at in tags(volume, ALLOCATION_EXTENT):
        block = at // 512 - PARTITION_START
        volume[at : at + 32] = descriptor(ALLOCATION_EXTENT, block, pack("<IIII", 0, 8, CONTINUATION | 512, block))
    return bytes(volume)


def long_names() -> bytes:
    """Return a volume with many files, whose Rock Ridge names continue as often as they may."""
    volume = bytearray(write_iso9660({f"{number:04}" + "n" * 200: b"" for number in range(800)}, rock_ridge="1.12"))
    at, added = volume.find(b"CE\x1c\x01"), len(volume) // 2048
    while at >= 0:
        volume[at : at + 28] = b"CE\x1c\x01" + pack("<I4xI4xI4x", added, 0, 2048)
        at = volume.find(b"CE\x1c\x01", at + 1)
    for sector in range(added + 1, added + iso9660.MAX_CONTINUATIONS - 1):
        volume += b"NM\x05\x01\0" * 404 + b"CE\x1c\x01" + pack("<I4xI4xI4x", sector, 0, 2048)
    return bytes(volume) + bytes(2048)


DEAREST: dict[str, tuple[Callable[..., Contents], Callable[[], bytes]]] = {
    "a large directory": (udf.read_files, lambda: write_udf(CHEAP)),
    "a directory in many pieces": (udf.read_files, lambda: write_udf(CHEAP, Layout(block_size=512, piece=1, chain=20))),
    "metadata in many pieces": (udf.read_files, scattered_metadata),
    "an endless chain": (udf.read_files, endless_chain),
    "files that are all holes": (
        udf.read_files,
        lambda: write_udf(dict.fromkeys(LIMITS, bytes(128 << 10)), Layout(piece=1, chain=100)),
    ),
    "long names": (iso9660.read_files, long_names),
}


# Read a file in a process of its own and tell by how many KiB its memory grew.
MEASURE = """
import os, sys
from minprov.discs import iso9660, udf
from minprov.errors import ProvisioningError

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

file = os.open(sys.argv[2], os.O_RDONLY)
before = peak()
try:
    reader = {"udf": udf, "iso9660": iso9660}[sys.argv[1]]
    reader.read_files(lambda at, size: os.pread(file, size, at), os.fstat(file).st_size, %r)
except ProvisioningError:
    pass
print(peak() - before)
"""


@pytest.mark.parametrize("name", DEAREST)
def test_the_dearest_volumes_stay_within_bounds(name: str, tmp_path: Path) -> None:
    reader, write = DEAREST[name]
    image = tmp_path / "image"
    image.write_bytes(write())
    outcome(reader, image.read_bytes())
    argv = [sys.executable, "-c", MEASURE % LIMITS, reader.__module__.rpartition(".")[2], str(image)]
    grown = int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert grown < 16 << 10
