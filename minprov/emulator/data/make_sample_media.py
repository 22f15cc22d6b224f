"""Make sample-media.img.gz: the sample VM's media as pure UDF. Needs genisoimage; run it when SAMPLE_VM changes.

genisoimage writes a bridge. Without the ISO 9660 descriptors (CD001) in front, and with the UDF recognition sequence
moved up to where they were, what remains is a pure UDF volume (ECMA-167 2/8.3: the sequence begins at sector 16).
"""

from __future__ import annotations

import gzip
import subprocess
import tempfile
from pathlib import Path

from minprov.emulator.media import media_files
from minprov.emulator.vm import SAMPLE_VM

SECTOR = 2048
FIRST = 16
IMAGE = Path(__file__).with_name("sample-media.img.gz")


def make_bridge(directory: Path) -> bytearray:
    """Return a bridge image of the sample VM's files."""
    root = directory / "root"
    root.mkdir()
    for name, data in media_files(SAMPLE_VM).items():
        (root / name).write_bytes(data)
    image = directory / "bridge.img"
    subprocess.run(["genisoimage", "-quiet", "-udf", "-V", "PROVISIONING", "-o", image, root], check=True)  # noqa: S607
    return bytearray(image.read_bytes())


def make_pure(image: bytearray) -> None:
    """Turn a bridge into a pure UDF volume, in place."""
    last = FIRST
    while image[last * SECTOR + 1 : last * SECTOR + 6] != b"TEA01":
        last += 1
    descriptors = [bytes(image[number * SECTOR : (number + 1) * SECTOR]) for number in range(FIRST, last + 1)]
    udf = b"".join(item for item in descriptors if item[1:6] != b"CD001")
    image[FIRST * SECTOR : (last + 1) * SECTOR] = udf.ljust(len(descriptors) * SECTOR, b"\0")


def main() -> None:
    """Write the image next to this file; the time stamp in the gzip header is left out."""
    with tempfile.TemporaryDirectory() as directory:
        image = make_bridge(Path(directory))
    make_pure(image)
    IMAGE.write_bytes(gzip.compress(image, compresslevel=9, mtime=0))


if __name__ == "__main__":
    main()
