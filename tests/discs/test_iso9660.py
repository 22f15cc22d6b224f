"""ISO 9660 volumes are read as other implementations write them, and what cannot be read is refused by name."""

from __future__ import annotations

import io
import shutil
import subprocess
from struct import pack, unpack_from
from typing import TYPE_CHECKING, Any

import pycdlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minprov.discs import iso9660
from minprov.errors import ProvisioningError, Reason
from tests.discs.media_samples import LARGEST, Image, content, sample_files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FILES = {"ovf-env.xml": content("ovf-env.xml", 3000), "CustomData.bin": content("CustomData.bin", 65535)}

needs_genisoimage = pytest.mark.skipif(shutil.which("genisoimage") is None, reason="genisoimage is not installed")
needs_xorriso = pytest.mark.skipif(shutil.which("xorriso") is None, reason="xorriso is not installed")


def read(image: bytes | bytearray | Image, names: Iterable[str] = FILES) -> dict[str, bytes]:
    image = image if isinstance(image, Image) else Image(image)
    return iso9660.read_files(image, len(image.data), dict.fromkeys(names, LARGEST)).files


def refusal(image: bytes | bytearray, names: Iterable[str] = FILES) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        read(image, names)
    return caught.value


def write_tree(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def write_volume(files: dict[str, bytes], **options: Any) -> bytes:  # noqa: ANN401 (pycdlib is not typed)
    """Write a volume with pycdlib: Joliet and Rock Ridge have the names, ISO 9660 itself has F0, F1 and so on."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, **options)
    for index, (name, data) in enumerate(files.items()):
        iso.add_fp(
            io.BytesIO(data),
            len(data),
            f"/F{index}.;1",
            joliet_path=f"/{name}" if "joliet" in options else None,
            rr_name=name if "rock_ridge" in options else None,
        )
    output = io.BytesIO()
    iso.write_fp(output)
    iso.close()
    return output.getvalue()


# --- against other implementations ------------------------------------------------------------------------------------


@needs_genisoimage
@pytest.mark.parametrize(
    "options", [["-J"], ["-R"], ["-J", "-R"], ["-J", "-r", "-udf"], ["-iso-level", "4"], ["-l", "-U"]], ids=" ".join
)
def test_reads_what_genisoimage_writes(tmp_path: Path, options: list[str]) -> None:
    files = {name: data for name, data in sample_files(2048).items() if len(name) < 60 and max(name) <= "\uffff"}
    if {"-J", "-R"} & set(options):
        options = ["-input-charset", "utf-8", *options]
    else:
        files = {name: data for name, data in files.items() if name.isascii()}
    image = tmp_path / "image"
    tree = write_tree(tmp_path / "tree", files)
    subprocess.run(["genisoimage", "-quiet", *options, "-o", image, tree], check=True)
    assert read(image.read_bytes(), files) == files


@needs_xorriso
@pytest.mark.parametrize("options", [["-J"], ["-R"], ["-J", "-R", "-iso-level", "3"]], ids=" ".join)
def test_reads_what_xorriso_writes(tmp_path: Path, options: list[str]) -> None:
    files = sample_files(2048)
    if "-R" not in options:
        files = {name: data for name, data in files.items() if len(name) < 60 and max(name) <= "\uffff"}
    image = tmp_path / "image"
    tree = write_tree(tmp_path / "tree", files)
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", *options, "-o", image, tree], check=True)
    assert read(image.read_bytes(), files) == files


@needs_xorriso
def test_reads_what_pycdlib_reads(tmp_path: Path) -> None:
    image = tmp_path / "image"
    tree = write_tree(tmp_path / "tree", FILES)
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-J", "-R", "-o", image, tree], check=True)
    iso = pycdlib.PyCdlib()
    iso.open(str(image))
    for name in FILES:
        for path in ({"rr_path": f"/{name}"}, {"joliet_path": f"/{name}"}):
            output = io.BytesIO()
            iso.get_file_from_iso_fp(output, **path)
            assert read(image.read_bytes())[name] == output.getvalue()
    iso.close()


@pytest.mark.parametrize(
    "options",
    [
        {"joliet": 1},
        {"joliet": 2},
        {"joliet": 3},
        {"rock_ridge": "1.09"},
        {"rock_ridge": "1.12"},
        {"udf": "2.60", "joliet": 3},
    ],
)
def test_reads_what_pycdlib_writes(options: dict[str, Any]) -> None:
    assert read(write_volume(FILES, **options)) == FILES


joliet_names = st.text(
    st.characters(max_codepoint=0xFFFF, exclude_categories=["C"], exclude_characters="*/:;?\\"), min_size=1, max_size=21
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=50)
@given(files=st.dictionaries(joliet_names, st.binary(max_size=10_000), max_size=40))
def test_any_files_come_back(files: dict[str, bytes]) -> None:
    assert read(write_volume(files, joliet=3), files) == files
    assert read(write_volume(files, rock_ridge="1.12"), files) == files


def test_the_volume_is_named() -> None:
    for options, name in (({}, "ISO 9660"), ({"joliet": 3}, "ISO 9660 with Joliet")):
        volume = write_volume({}, **options)
        assert iso9660.read_files(Image(volume), len(volume), {}).volume == name


# --- structures -------------------------------------------------------------------------------------------------------

# The root directory of a volume by pycdlib: records of 34 bytes for "." and "..", then the files.
PLAIN = write_volume({"first": b"1" * 2048, "second": b"2" * 100})
FIRST, SECOND = PLAIN.index(b"F0.;1") - 33, PLAIN.index(b"F1.;1") - 33


def edited(volume: bytes, offset: int, value: bytes) -> bytes:
    return volume[:offset] + value + volume[offset + len(value) :]


def test_names_without_joliet_and_rock_ridge_are_those_that_linux_shows() -> None:
    assert read(PLAIN, ["f0", "F1", "first", "F0.;1"]) == {"f0": b"1" * 2048, "F1": b"2" * 100}


def test_a_file_in_several_sections_is_put_together() -> None:
    sections = edited(edited(PLAIN, FIRST + 25, b"\x80"), SECOND + 33, b"F0")
    assert read(sections, ["f0"]) == {"f0": b"1" * 2048 + b"2" * 100}


def test_extended_attributes_are_passed_over() -> None:
    """They precede the data in its extent: 9.1.3."""
    (block,) = unpack_from("<I", PLAIN, SECOND + 2)
    assert read(edited(edited(PLAIN, SECOND + 1, b"\1"), SECOND + 2, pack("<I", block - 1)), ["f1"]) == {
        "f1": b"2" * 100
    }


@pytest.mark.parametrize("flags", [b"\2", b"\4"])
def test_directories_and_associated_files_are_not_mistaken_for_files(flags: bytes) -> None:
    assert read(edited(PLAIN, FIRST + 25, flags), ["f0", "f1"]) == {"f1": b"2" * 100}


def test_an_empty_file_may_lie_anywhere() -> None:
    nowhere = edited(PLAIN, FIRST + 2, b"\xff\xff\xff\xff")
    assert read(edited(nowhere, FIRST + 10, bytes(4)), ["f0"]) == {"f0": b""}


@pytest.mark.parametrize("offset", [26, 27])
def test_an_interleaved_file_is_refused_by_name(offset: int) -> None:
    fault = refusal(edited(PLAIN, FIRST + offset, b"\1"), ["f0"])
    assert (fault.reason, fault.data["feature"]) == (Reason.MEDIA_UNSUPPORTED, "interleaved file")


@needs_xorriso
def test_a_compressed_file_is_refused_by_name(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"ovf-env.xml": bytes(100_000)})
    image = tmp_path / "image"
    commands = ["-zisofs", "level=9", "-map", str(tree), "/", "-set_filter_r", "--zisofs", "/", "--", "-commit"]
    subprocess.run(["xorriso", "-outdev", image, *commands], check=True, capture_output=True)
    fault = refusal(image.read_bytes())
    assert (fault.reason, fault.data["feature"]) == (Reason.MEDIA_UNSUPPORTED, "zisofs compression")


ROCK_RIDGE = write_volume({"ovf-env.xml": b"data"}, rock_ridge="1.12")
ENTRIES = ROCK_RIDGE.index(b"ovf-env.xml") - 5  # of the file's record: NM, and after it PX and TF


def test_a_sparse_file_is_refused_by_name() -> None:
    fault = refusal(edited(ROCK_RIDGE, ROCK_RIDGE.index(b"TF", ENTRIES), b"SF"))
    assert (fault.reason, fault.data["feature"]) == (Reason.MEDIA_UNSUPPORTED, "Rock Ridge sparse file")


def test_entries_behind_the_terminator_are_ignored() -> None:
    ended = edited(ROCK_RIDGE, ROCK_RIDGE.index(b"PX", ENTRIES), b"ST")
    assert read(edited(ended, ended.index(b"TF", ENTRIES), b"SF")) == {"ovf-env.xml": b"data"}


def test_rock_ridge_starts_where_the_root_says() -> None:
    """On discs for CD-ROM XA, 14 bytes precede the entries: SUSP 5.3."""
    start = ROCK_RIDGE.index(b"SP\x07\x01\xbe\xef")
    assert read(edited(ROCK_RIDGE, start, b"XX")) == {}
    assert read(edited(ROCK_RIDGE, start + 6, b"\1")) == {}


def test_a_file_may_be_as_large_as_its_limit_and_no_larger() -> None:
    assert iso9660.read_files(Image(PLAIN), len(PLAIN), {"f0": 2048}).files
    with pytest.raises(ProvisioningError, match="length=2048, limit=2047"):
        iso9660.read_files(Image(PLAIN), len(PLAIN), {"f0": 2047})


# --- damage -----------------------------------------------------------------------------------------------------------

PRIMARY, TERMINATOR = 16 * 2048, 17 * 2048
ROOT = PRIMARY + 156
LONG_NAMED = write_volume({"n" * 250: b"data"}, rock_ridge="1.12")
CONTINUED = LONG_NAMED.rindex(b"CE\x1c\x01")


def continuation(volume: bytes) -> int:
    """Return the offset of the area that the long name continues in."""
    block, offset = unpack_from("<I4xI", volume, CONTINUED + 4)
    return int(block) * 2048 + int(offset)


def every_file_goes_on(volume: bytes) -> bytes:
    """Set the flag that another section follows in each record."""
    changed = bytearray(volume)
    at = volume.find(b".;1")
    while at >= 0:
        changed[volume.rindex(b"F", 0, at) - 8] = 0x80
        at = volume.find(b".;1", at + 1)
    return bytes(changed)


MANY = write_volume({f"{n}": b"" for n in range(70)})

IMPOSSIBLE = {
    "a volume descriptor has no standard identifier": edited(PLAIN, TERMINATOR + 1, b"CD002"),
    "no primary volume descriptor": edited(PLAIN, PRIMARY, b"\0"),
    "a volume descriptor has no standard identifier ": edited(PLAIN, TERMINATOR, b"\0"),
    "an extent reaches beyond the end of the disc": edited(PLAIN, ROOT + 2, b"\xff\xff\xff\xff"),
    "an extent reaches beyond the end of the disc ": edited(PLAIN, FIRST + 2, b"\xff\xff\xff\xff"),
    "an extent reaches beyond the end of the disc  ": edited(LONG_NAMED, CONTINUED + 4, b"\xff\xff\xff\xff"),
    "the root directory is larger than any real one": edited(PLAIN, ROOT + 10, b"\xff\xff\xff\xff"),
    "a directory record does not fit": edited(PLAIN, FIRST, b"\x20"),
    "a directory record does not fit ": edited(PLAIN, FIRST + 32, b"\xff"),
    "a directory record does not fit  ": edited(PLAIN, FIRST, b"\xff" * 60 * 34),
    "a file without its last section": edited(PLAIN, SECOND + 25, b"\x80"),
    "a file in more sections than any real one": every_file_goes_on(MANY),
    "a continuation area is larger than a sector": edited(LONG_NAMED, CONTINUED + 20, pack("<I", 2049)),
    "a system use area has no end": edited(
        LONG_NAMED, continuation(LONG_NAMED), LONG_NAMED[CONTINUED : CONTINUED + 28]
    ),
}


@pytest.mark.parametrize("fault", IMPOSSIBLE)
def test_refuses(fault: str) -> None:
    error = refusal(IMPOSSIBLE[fault], ["f0", "f1"])
    assert (error.reason, error.data["fault"]) == (Reason.MEDIA_CORRUPT, fault.rstrip())


def test_a_disc_cut_short_is_refused_wherever_it_is_cut() -> None:
    for end in range(0, PLAIN.index(b"2" * 100) + 100, 512):
        assert refusal(PLAIN[:end], ["f0", "f1"]).reason is Reason.MEDIA_CORRUPT


def test_an_unreadable_sector_is_reported_as_such() -> None:
    with pytest.raises(ProvisioningError) as caught:
        read(Image(PLAIN, bad=[range(FIRST, FIRST + 1)]), ["f0"])
    assert caught.value.reason is Reason.MEDIA_UNREADABLE


def test_an_azure_sized_disc_takes_few_reads() -> None:
    image = Image(write_volume(FILES, joliet=3, rock_ridge="1.12"))
    assert read(image) == FILES
    assert len(image.reads) <= 10
    assert image.bytes_read <= 128 * 1024
