"""Runs in the guest of make.py, where the kernel's udf driver is the oracle, in both directions.

It writes: each image is formatted by mkudffs, mounted, filled, unmounted, and read through the kernel once more. It
reads: what tests/discs/udf_writer.py writes is mounted, and must show the files that went in. `/out` gets the images
and the manifest, which says of each image what files the kernel saw, and of each written volume its own digest.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.discs.media_samples import LAYOUTS, content, sample_files
from tests.discs.udf_writer import write_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

OUT = "/out"
MOUNT_POINT = "/mnt"

# mount(8) options that decide what the kernel writes: data in the file entry, short, or long allocation descriptors.
ALLOCATIONS = {"embedded": "adinicb", "short": "noadinicb,shortad", "long": "noadinicb"}

Digests = dict[str, str]


@contextmanager
def mounted(image: str, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "udf", "-o", f"loop,{options}", image, MOUNT_POINT], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", MOUNT_POINT], check=True)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests() -> Digests:
    """Return the SHA-256 of each regular file in the mounted root directory."""
    found = {}
    with os.scandir(MOUNT_POINT) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                with open(entry.path, "rb") as file:
                    found[entry.name] = digest(file.read())
    return dict(sorted(found.items()))


def fill(block_size: int, turns: int) -> None:
    """Write the sample files, a file with a hole, fragments, links and a directory, and delete some."""
    directory = f"{MOUNT_POINT}/directory"
    for index in range(40):
        write(f"deleted-{index}", content("deleted", 100))
    for name, data in sample_files(block_size).items():
        write(name, data)
    for index in range(0, 40, 2):
        os.unlink(f"{MOUNT_POINT}/deleted-{index}")
    for turn in range(turns):  # files that grow by turns end up in as many extents
        for name in ("fragmented", "passing"):
            with open(f"{MOUNT_POINT}/{name}", "ab") as file:
                file.write(content(f"{name}{turn}", block_size))
                file.flush()
                os.fsync(file.fileno())
    os.unlink(f"{MOUNT_POINT}/passing")
    with open(f"{MOUNT_POINT}/with-a-hole", "wb") as file:
        file.write(content("before", 5000))
        file.seek(50000)
        file.write(content("after", 5000))
    os.mkdir(directory)
    write("directory/ovf-env.xml", b"not this one")
    os.symlink("size-1", f"{MOUNT_POINT}/symlink")
    os.link(f"{MOUNT_POINT}/size-1", f"{MOUNT_POINT}/hard-link")


def write(name: str, data: bytes) -> None:
    with open(f"{MOUNT_POINT}/{name}", "wb") as file:
        file.write(data)


def make(name: str, block_size: int, blocks: int, *options: str, mount_options: str | None, turns: int = 5) -> Digests:
    """Make an image; without mount options only format it."""
    image = f"/tmp/{name}"
    uuid = digest(name.encode())[:16]
    command = ["mkudffs", "--new-file", f"--blocksize={block_size}", f"--uuid={uuid}", *options, image, str(blocks)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seen = {}
    if mount_options:
        with mounted(image, mount_options):
            fill(block_size, turns)
        with mounted(image, "ro"):
            seen = digests()
        for file, data in sample_files(block_size).items():
            assert seen[file] == digest(data), (name, file)
    with open(image, "rb") as raw, lzma.open(f"{OUT}/{name}.xz", "wb", preset=9 | lzma.PRESET_EXTREME) as packed:
        packed.write(raw.read())
    os.unlink(image)
    print(name, len(seen), "files", os.path.getsize(f"{OUT}/{name}.xz"), "bytes", flush=True)
    return seen


def make_images() -> dict[str, Digests]:
    made = {}
    turns = {512: 60, 2048: 130, 4096: 10}
    for shift, revision in enumerate(("1.02", "1.50", "2.00", "2.01")):
        for index, block_size in enumerate((512, 2048, 4096)):
            allocation = list(ALLOCATIONS)[(index + shift) % 3]
            name = f"udf-{revision}-{block_size}-{allocation}.img"
            blocks = 800 + 2 * turns[block_size] + 600_000 // block_size
            options = ALLOCATIONS[allocation]
            made[name] = make(
                name, block_size, blocks, f"--udfrev={revision}", mount_options=options, turns=turns[block_size]
            )
    for name, special, mount_options in (
        ("udf-1.50-virtual.img", ["--media-type=cdr", "--udfrev=1.50"], None),
        ("udf-2.60-virtual.img", ["--media-type=bdr", "--udfrev=2.60"], None),
        ("udf-2.01-strategy-4096.img", ["--udfrev=2.01", "--strategy=4096"], None),
        ("udf-2.01-sparable.img", ["--media-type=cdrw", "--udfrev=2.01"], "adinicb"),
    ):
        made[name] = make(name, 2048, 4096, *special, mount_options=mount_options)
    return made


def read_written() -> dict[str, str]:
    """Return the digest of each volume of udf_writer.py, after the kernel has shown that it holds what went in."""
    read = {}
    for name, layout in LAYOUTS.items():
        files = sample_files(layout.block_size)
        volume = write_volume(files, layout)
        with open("/tmp/written.img", "wb") as file:
            file.write(volume)
        with mounted("/tmp/written.img", "ro"):
            seen = digests()
        assert seen == {file: digest(data) for file, data in sorted(files.items())}, name
        print("written:", name, len(seen), "files", flush=True)
        read[name] = digest(volume)
    return read


def main() -> None:
    manifest = {"kernel": os.uname().release, "images": make_images(), "written": read_written()}
    with open(f"{OUT}/manifest.json", "w") as file:
        json.dump(manifest, file, indent=1)


if __name__ == "__main__":
    main()
