"""The reader of an NTFS root directory: what mkntfs and a driver make, and whatever else a disk may hold."""

from __future__ import annotations

import shutil
import subprocess
from time import process_time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minprov.errors import ProvisioningError, Reason
from minprov.formats.ntfs import MAX_ENTRIES, Directory, Entry, read_root_directory
from tests.cost import cost

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 8 << 20
SECONDS = 0.005
"""What the reader may take; shorter than a wait for the disk."""
TRACED = 4 << 20

pytestmark = pytest.mark.skipif(not shutil.which("mkntfs"), reason="needs ntfs-3g")


def make(path: Path, *options: str) -> bytes:
    with path.open("wb") as stream:
        stream.truncate(SIZE)
    command = ["mkntfs", "--quiet", "--quick", "--force", "--label", "Temporary Storage", *options, str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path.read_bytes()


def fill(path: Path, script: str) -> bytes:
    mounted = path.with_suffix(".mounted")
    mounted.mkdir()
    subprocess.run(["ntfs-3g", path, mounted], check=True)
    try:
        subprocess.run(["sh", "-euc", script], cwd=mounted, check=True)
    finally:
        subprocess.run(["umount", mounted], check=True)
    return path.read_bytes()


def read(image: bytes) -> Directory:
    return read_root_directory(lambda offset, size: image[offset : offset + size], len(image))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make(tmp_path_factory.mktemp("ntfs") / "empty")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("ntfs") / "full"
    make(path)
    return fill(path, "seq -f file-%g 60 | xargs touch")


@pytest.mark.parametrize("options", [[], ["-c", "512"], ["-c", "4096"], ["-c", "65536"]])
def test_a_new_volume_is_empty(options: list[str], tmp_path: Path) -> None:
    assert read(make(tmp_path / "v", *options)) == Directory("Temporary Storage", (), complete=True)


@pytest.mark.root
def test_files_and_directories_are_told_apart(tmp_path: Path) -> None:
    make(tmp_path / "v")
    image = fill(tmp_path / "v", "mkdir d; printf 12345 >f; touch ü")
    assert sorted(read(image).entries) == [Entry("d", True, 0), Entry("f", False, 5), Entry("ü", False, 0)]


@pytest.mark.root
@pytest.mark.parametrize("number", [40, MAX_ENTRIES - 1, MAX_ENTRIES, 1000])
def test_names_in_index_blocks_are_found_as_far_as_one_wants_to_know(number: int, tmp_path: Path) -> None:
    make(tmp_path / "v")
    found = read(fill(tmp_path / "v", f"seq -f name-%g {number} | xargs touch"))
    assert len(set(found.entries)) == min(number, MAX_ENTRIES)
    assert found.complete == (number < MAX_ENTRIES)


@pytest.mark.root
def test_reading_takes_no_time(full: bytes) -> None:
    best = min(_seconds(full) for _ in range(5))
    assert best < SECONDS


def _seconds(image: bytes) -> float:
    start = process_time()
    read(image)
    return process_time() - start


def places(image: bytes) -> st.SearchStrategy[int]:
    """Return where the reader looks: the boot sector, and every record and block that begins with its magic."""
    found = [0]
    for magic in (b"FILE", b"INDX"):
        at = image.find(magic)
        while at >= 0 and len(found) < 200:
            found.append(at)
            at = image.find(magic, at + 512)
    return st.sampled_from(found)


@pytest.mark.root
@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_volume_is_a_value_or_an_error_and_never_an_empty_one(data: st.DataObject, full: bytes) -> None:
    image = bytearray(full)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(places(full)) + data.draw(st.integers(0, 1023))
        new = data.draw(st.binary(min_size=1, max_size=8))
        image[at : at + len(new)] = new
    try:
        entries = read(bytes(image)).entries
    except ProvisioningError as error:
        assert error.reason is Reason.RESOURCE_DISK_HOLDS_DATA
    else:
        assert entries


@pytest.mark.root
def test_a_volume_that_leads_in_circles_costs_no_more(full: bytes) -> None:
    # Every block of the directory claims to be of the same place, and every record to be the root's.
    block = full[full.index(b"INDX") :][:4096]
    image = bytearray(full)
    at = image.find(b"INDX")
    while at >= 0:
        image[at : at + 4096] = block
        at = image.find(b"INDX", at + 4096)
    seconds, peak = cost(read, bytes(image))
    assert seconds < 10 * SECONDS
    assert peak < TRACED


@given(data=st.binary(max_size=4096))
def test_anything_at_all_is_an_error(data: bytes) -> None:
    boot = bytearray(512)
    boot[3:11], boot[510:512] = b"NTFS    ", b"\x55\xaa"
    boot[11:84] = data[:73].ljust(73, b"\0")
    for image in (data, bytes(boot) + data):
        with pytest.raises(ProvisioningError):
            read(image)


def test_a_volume_cut_short_anywhere_is_an_error(empty: bytes) -> None:
    for size in (0, 100, 511, 512, 4096, 20000, SIZE // 2, SIZE - 1024):
        with pytest.raises(ProvisioningError):
            read(empty[:size])


def test_what_a_device_does_not_give_is_an_error(empty: bytes) -> None:
    def short(offset: int, size: int) -> bytes:
        return empty[offset : offset + size] if offset == 0 else b""

    with pytest.raises(ProvisioningError):
        read_root_directory(short, SIZE)
