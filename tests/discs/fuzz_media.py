"""Coverage-guided fuzzing of the readers: ``make fuzz``, or ``python -m tests.discs.fuzz_media [libFuzzer options]``.

An input is a volume in brief: a byte that chooses the reader, then sectors, each behind its number; all else is zeros.
The tags of UDF are not checked, for a hostile disc has right ones, and the fuzzer must not spend its time on finding
them. Anything but a value or a ProvisioningError is a crash; so is more time or memory than a disc may cost.

The corpus is kept in an archive, which the fuzzer starts from and adds to; the unit suite replays it.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from struct import pack, unpack_from

from tests.discs.media_samples import content

CORPUS = Path(__file__).parents[1] / "data/fuzz_media.tar.xz"
LIMITS = {"ovf-env.xml": 1 << 20, "CustomData.bin": 128 << 10}
SECTOR = 512
RECORD = 2 + SECTOR
SECTORS = 4096
FUZZ = "--fuzz"


def run(data: bytes) -> None:
    """Read the volume that an input stands for."""
    from minprov.discs import iso9660, udf  # in the fuzzer these imports are instrumented
    from minprov.errors import ProvisioningError

    sectors = {}
    for at in range(1, len(data) - 1, RECORD):
        (number,) = unpack_from("<H", data, at)
        sectors[number % SECTORS] = data[at + 2 : at + RECORD].ljust(SECTOR, b"\0")
    size = (max(sectors, default=0) + 1) * SECTOR

    def read(offset: int, length: int) -> bytes:
        first, last = offset // SECTOR, (offset + length - 1) // SECTOR
        whole = b"".join(sectors.get(number, bytes(SECTOR)) for number in range(first, last + 1))
        return whole[offset % SECTOR :][:length]

    reader = iso9660.read_files if data[:1] == b"\1" else udf.read_files
    with suppress(ProvisioningError):
        reader(read, size, LIMITS)


def without_tag_check(descriptor: bytes, location: int, *identifiers: int) -> int:
    """Stand in for `udf._verify`."""
    from minprov.discs.volume import corrupt

    (identifier,) = unpack_from("<H", descriptor)
    if identifier not in identifiers:
        raise corrupt("tag identifier", block=location)
    return int(identifier)


def inputs() -> list[bytes]:
    """Return the corpus."""
    with tarfile.open(CORPUS) as archive:
        return [file.read() for member in archive if (file := archive.extractfile(member))]


def keep(corpus: list[bytes]) -> None:
    """Write the corpus, the same for the same inputs."""
    with tarfile.open(CORPUS, "w:xz") as archive:
        for data in sorted(set(corpus)):
            member = tarfile.TarInfo(sha256(data).hexdigest()[:16])
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def brief(reader: int, image: bytes) -> bytes:
    """Return an image as an input."""
    sectors = ((at // SECTOR, image[at : at + SECTOR]) for at in range(0, len(image), SECTOR))
    return bytes([reader]) + b"".join(pack("<H", at) + data.ljust(SECTOR, b"\0") for at, data in sectors if any(data))


def seeds() -> list[bytes]:
    """Return inputs to start from: a volume of each kind."""
    from tests.discs.test_iso9660 import write_volume as write_iso9660
    from tests.discs.udf_writer import LONG, Layout
    from tests.discs.udf_writer import write_volume as write_udf

    files = {"ovf-env.xml": content("ovf-env.xml", 700), "CustomData.bin": content("CustomData.bin", 1300), "Ā": b""}
    plain = Layout(block_size=512, deleted=("gone",))
    chained = Layout(block_size=512, piece=1, chain=1, embed=False)
    long = Layout(block_size=512, piece=1, chain=1, embed=False, allocation=LONG, extended=True)
    metadata = Layout(block_size=512, revision=0x0250, metadata_piece=2, extended=True)
    volumes = [brief(0, write_udf(files, layout)) for layout in (plain, chained, long, metadata)]
    volumes += [brief(1, write_iso9660(files, **options)) for options in ({}, {"joliet": 3}, {"rock_ridge": "1.12"})]
    return [*volumes, brief(1, write_iso9660({**files, "n" * 250: b""}, rock_ridge="1.12"))]


def fuzz(options: list[str]) -> None:
    """Give the process to the fuzzer."""
    import atheris

    with atheris.instrument_imports(include=["minprov.discs.udf", "minprov.discs.iso9660", "minprov.discs.volume"]):
        from minprov.discs import udf
    udf._verify = without_tag_check
    atheris.Setup([sys.argv[0], "-max_len=32768", "-timeout=5", "-rss_limit_mb=300", *options], run)
    atheris.Fuzz()


def main() -> None:
    """Fuzz from the corpus, and keep what it has become."""
    with tempfile.TemporaryDirectory(prefix="minprov-fuzz-") as directory:
        for data in [*seeds(), *(inputs() if CORPUS.exists() else [])]:
            (Path(directory) / sha256(data).hexdigest()).write_bytes(data)
        fuzzer = [sys.executable, "-m", "tests.discs.fuzz_media", FUZZ, *sys.argv[1:], directory]
        subprocess.run(fuzzer, check=True)  # an input that crashes the readers is left in the working directory
        keep([path.read_bytes() for path in Path(directory).iterdir()])


if __name__ == "__main__":
    if FUZZ in sys.argv:
        fuzz(sys.argv[2:])
    else:
        main()
