"""UDF volumes of every kind are read as the kernel reads them, and damaged ones are refused by name."""

from __future__ import annotations

import io
import json
import lzma
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from struct import pack, unpack, unpack_from
from typing import TYPE_CHECKING

import pycdlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.discs import udf
from minprov.errors import ProvisioningError, Reason
from tests.discs.media_samples import LARGEST, LAYOUTS, Image, content, sample_files
from tests.discs.udf_surgery import (
    ALLOCATION_EXTENT,
    ANCHOR,
    FILE_ENTRY,
    FILE_IDENTIFIER,
    FILE_SET,
    LOGICAL_VOLUME,
    PARTITION,
    TERMINATOR,
    VOLUME_DESCRIPTOR_POINTER,
    edited,
    sealed,
    tags,
)
from tests.discs.udf_writer import (
    CONTINUATION,
    LONG,
    MAIN_SEQUENCE,
    PARTITION_START,
    RESERVE_SEQUENCE,
    SHORT,
    Layout,
    descriptor,
    write_volume,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA = Path(__file__).parents[1] / "data/media"
MANIFEST = json.loads((DATA / "manifest.json").read_text())
FILES = {"ovf-env.xml": content("ovf-env.xml", 3000), "CustomData.bin": content("CustomData.bin", 65535)}
PLAIN = write_volume(FILES)


def read(image: bytes | Image, names: Iterable[str] = FILES) -> dict[str, bytes]:
    image = image if isinstance(image, Image) else Image(image)
    return udf.read_files(image, len(image.data), dict.fromkeys(names, LARGEST)).files


def refusal(image: bytes | Image, names: Iterable[str] = FILES) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        read(image, names)
    return caught.value


def unpacked(name: str) -> bytes:
    return lzma.decompress((DATA / f"{name}.xz").read_bytes())


# --- against other implementations ------------------------------------------------------------------------------------

REFUSED = {
    "udf-1.50-virtual.img": "*UDF Virtual Partition",
    "udf-2.60-virtual.img": "*UDF Virtual Partition",
    "udf-2.01-sparable.img": "*UDF Sparable Partition",
    "udf-2.01-strategy-4096.img": "ICB strategy 4096",
}


@pytest.mark.parametrize("name", MANIFEST["images"].keys() - REFUSED)
def test_reads_what_the_kernel_wrote(name: str) -> None:
    expected = MANIFEST["images"][name]
    assert {file: sha256(data).hexdigest() for file, data in read(unpacked(name), expected).items()} == expected


@pytest.mark.parametrize("name", LAYOUTS)
def test_reads_what_the_kernel_reads(name: str) -> None:
    files = sample_files(LAYOUTS[name].block_size)
    volume = write_volume(files, LAYOUTS[name])
    assert sha256(volume).hexdigest() == MANIFEST["written"][name], "the kernel has not read this: make media-images"
    assert read(volume, files) == files


@pytest.mark.skipif(shutil.which("genisoimage") is None, reason="genisoimage is not installed")
def test_reads_what_genisoimage_writes(tmp_path: Path) -> None:
    # Its Joliet code, which -udf needs, takes no character beyond the basic plane and no name beyond 103 of them.
    files = {name: data for name, data in sample_files(2048).items() if len(name) < 100 and max(name) <= "\uffff"}
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, data in files.items():
        (tree / name).write_bytes(data)
    image = tmp_path / "bridge.iso"
    subprocess.run(["genisoimage", "-quiet", "-udf", "-input-charset", "utf-8", "-o", image, tree], check=True)
    assert read(image.read_bytes(), files) == files


def test_reads_what_pycdlib_writes() -> None:
    iso = pycdlib.PyCdlib()
    iso.new(udf="2.60")
    for index, (name, data) in enumerate(FILES.items()):
        iso.add_fp(io.BytesIO(data), len(data), f"/F{index}.;1", udf_path=f"/{name}")
    output = io.BytesIO()
    iso.write_fp(output)
    iso.close()
    assert read(output.getvalue()) == FILES


@pytest.mark.skipif(shutil.which("mkudffs") is None, reason="mkudffs is not installed")
@pytest.mark.parametrize("space", ["freedbitmap", "freedtable", "unallocbitmap", "unalloctable"])
@pytest.mark.parametrize("allocation", ["inicb", "short", "long"])
def test_reads_what_mkudffs_formats(tmp_path: Path, space: str, allocation: str) -> None:
    image = tmp_path / "image"
    options = [f"--space={space}", f"--ad={allocation}", "--noefe"]
    subprocess.run(["mkudffs", *options, "--new-file", image, "1024"], check=True, stdout=subprocess.DEVNULL)
    assert read(image.read_bytes()) == {}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_by_name_what_only_rewritable_discs_have(name: str) -> None:
    fault = refusal(unpacked(name))
    assert (fault.reason, fault.data["feature"]) == (Reason.MEDIA_UNSUPPORTED, REFUSED[name])


@pytest.mark.parametrize("name", LAYOUTS)
def test_names_the_revision(name: str) -> None:
    revision = LAYOUTS[name].revision
    volume = write_volume({}, LAYOUTS[name])
    assert udf.read_files(Image(volume), len(volume), {}).volume == f"UDF {revision >> 8:x}.{revision & 0xFF:02x}"


# --- structures -------------------------------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=80)
layouts = st.builds(
    Layout,
    block_size=st.sampled_from(udf.BLOCK_SIZES),
    revision=st.sampled_from((0x0102, 0x0150, 0x0200, 0x0201, 0x0250, 0x0260)),
    extended=st.booleans(),
    allocation=st.sampled_from((SHORT, LONG)),
    embed=st.booleans(),
    piece=st.integers(1, 20),
    chain=st.integers(1, 12),
    scatter=st.none() | st.integers(0, 9),
    metadata_piece=st.none() | st.integers(2, 9),
    deleted=st.lists(names, max_size=3).map(tuple),
)


@given(files=st.dictionaries(names, st.binary(max_size=20_000), max_size=12), layout=layouts)
def test_any_files_in_any_layout_come_back(files: dict[str, bytes], layout: Layout) -> None:
    assert read(write_volume(files, layout), files) == files


def test_hidden_files_are_not_shown() -> None:
    volume = write_volume(FILES, Layout(hidden=("CustomData.bin",)))
    assert read(volume).keys() == {"ovf-env.xml"}


def test_names_are_compared_exactly() -> None:
    assert read(write_volume({"OVF-ENV.XML": b"", "ovf-env.xml ": b""})) == {}


def test_a_directory_is_not_mistaken_for_a_file() -> None:
    volume = write_volume({"ovf-env.xml": b""}, Layout(embed=False))
    assert read(volume) == {"ovf-env.xml": b""}
    assert read(edited(volume, FILE_IDENTIFIER, 18, b"\2", only=1)) == {}


def test_what_is_not_a_regular_file_is_refused() -> None:
    symbolic_link = edited(write_volume({"ovf-env.xml": b""}), FILE_ENTRY, 27, b"\x0c", only=1)
    assert refusal(symbolic_link).data["icb_file_type"] == "12"


def test_a_file_may_be_as_large_as_its_limit_and_no_larger() -> None:
    assert udf.read_files(Image(PLAIN), len(PLAIN), {"ovf-env.xml": 3000}).files
    with pytest.raises(ProvisioningError, match="length=3000, limit=2999"):
        udf.read_files(Image(PLAIN), len(PLAIN), {"ovf-env.xml": 2999})


def test_the_descriptor_with_the_highest_number_prevails() -> None:
    """Wherever it stands in its sequence: 3/8.4.3."""
    volume = bytearray(PLAIN)
    for start in (MAIN_SEQUENCE, RESERVE_SEQUENCE):
        for identifier, number, field, value in ((PARTITION, 2, 188, bytes(4)), (LOGICAL_VOLUME, 1, 252, b"\xff")):
            # An outdated copy that leads nowhere takes the place of the terminator.
            (at,) = (at for at in tags(volume, identifier) if at // 2048 in range(start, start + 4))
            end = next(at for at in tags(volume, TERMINATOR) if at // 2048 in range(start, start + 16))
            outdated = bytearray(volume[at : at + 2048])
            outdated[12:20] = pack("<II", end // 2048, number)
            outdated[field : field + len(value)] = value
            volume[end : end + 2048] = sealed(outdated)
            volume[end + 2048 : end + 2560] = descriptor(TERMINATOR, end // 2048 + 1, bytes(496))
    assert len(tags(volume, PARTITION)) == len(tags(volume, LOGICAL_VOLUME)) == 4
    assert read(bytes(volume)) == FILES


def test_a_sequence_may_continue_elsewhere() -> None:
    """By a volume descriptor pointer: 3/8.4.2, 3/10.3."""
    volume = bytearray(PLAIN)
    for start in (MAIN_SEQUENCE, RESERVE_SEQUENCE):
        elsewhere = start - 64
        for block in range(1, 4):
            moved = bytearray(volume[(start + block) * 2048 :][:2048])
            moved[12:16] = pack("<I", elsewhere + block)
            volume[(elsewhere + block) * 2048 : (elsewhere + block + 1) * 2048] = sealed(moved)
            volume[(start + block) * 2048 : (start + block + 1) * 2048] = bytes(2048)
        extent = pack("<III484x", 9, 15 * 2048, elsewhere + 1)
        volume[start * 2048 : start * 2048 + 512] = descriptor(VOLUME_DESCRIPTOR_POINTER, start, extent)
    assert read(bytes(volume)) == FILES


@pytest.mark.parametrize("kind", [1, 2])
def test_extents_that_are_not_recorded_read_as_zeros(kind: int) -> None:
    data = {"ovf-env.xml": bytes(10_000) + b"end"}
    volume = write_volume(data, Layout(piece=1))
    assert unpack_from("<I", volume, tags(volume, FILE_ENTRY)[1] + 176) == (2 << 30 | 2048,), "a hole to begin with"
    assert read(edited(volume, FILE_ENTRY, 176, pack("<I", kind << 30 | 2048), only=1)) == data


# --- damage -----------------------------------------------------------------------------------------------------------

CHAINED = write_volume(FILES, Layout(piece=1, chain=4, embed=False))
METADATA = write_volume(FILES, Layout(revision=0x0250, metadata_piece=2))
METADATA_MAP = METADATA[tags(METADATA, LOGICAL_VOLUME)[0] + 486 :][:8]  # the blocks of the metadata file and its mirror


@pytest.mark.parametrize(
    "identifier", [LOGICAL_VOLUME, PARTITION, FILE_SET, FILE_IDENTIFIER, ALLOCATION_EXTENT, FILE_ENTRY]
)
@pytest.mark.parametrize(
    ("offset", "value", "seal", "fault"),
    [
        (6, b"\xaa", False, "tag checksum"),
        (12, b"\xaa\xaa\xaa", True, "tag location 11184810"),
        (30, b"\xaa\xaa", False, "descriptor CRC"),
        (10, b"\xff\xff", False, "tag checksum"),
    ],
)
def test_each_descriptor_must_have_a_tag_that_fits(
    identifier: int, offset: int, value: bytes, seal: bool, fault: str
) -> None:
    assert tags(CHAINED, identifier)
    error = refusal(edited(CHAINED, identifier, offset, value, seal=seal))
    assert (error.reason, error.data["fault"]) == (Reason.MEDIA_CORRUPT, fault)


@pytest.mark.parametrize("identifier", [FILE_SET, FILE_IDENTIFIER, ALLOCATION_EXTENT, FILE_ENTRY])
def test_each_descriptor_must_be_of_the_kind_that_belongs_there(identifier: int) -> None:
    error = refusal(edited(CHAINED, identifier, 0, pack("<H", TERMINATOR)))
    assert (error.reason, error.data["fault"]) == (Reason.MEDIA_CORRUPT, "tag identifier 8")


def sequence(volume: bytes, start: int) -> range:
    return range(start * 2048, (start + 16) * 2048)


ANCHORS = [range(at, at + 512) for at in tags(PLAIN, ANCHOR)]


@pytest.mark.parametrize(
    "gone",
    [
        ANCHORS[:1],
        ANCHORS[:2],
        [ANCHORS[0], ANCHORS[2]],
        [sequence(PLAIN, MAIN_SEQUENCE)],
        [sequence(PLAIN, RESERVE_SEQUENCE)],
        [*ANCHORS[:2], sequence(PLAIN, MAIN_SEQUENCE)],
    ],
)
@pytest.mark.parametrize("how", ["erased", "unreadable"])
def test_a_lost_anchor_or_sequence_is_replaced_by_another(gone: list[range], how: str) -> None:
    assert read(without(PLAIN, gone, how)) == FILES


@pytest.mark.parametrize("how", ["erased", "unreadable"])
def test_a_lost_metadata_file_is_replaced_by_its_mirror(how: str) -> None:
    main, mirror = unpack("<II", METADATA_MAP)
    entries = [
        range((PARTITION_START + block) * 2048, (PARTITION_START + block + 1) * 2048) for block in (main, mirror)
    ]
    assert read(without(METADATA, entries[:1], how)) == FILES
    assert read(without(METADATA, entries[1:], how)) == FILES
    refusal(without(METADATA, entries, how))


def without(volume: bytes, ranges: list[range], how: str) -> Image:
    if how == "unreadable":
        return Image(volume, bad=ranges)
    erased = bytearray(volume)
    for gone in ranges:
        erased[gone.start : gone.stop] = bytes(len(gone))
    return Image(erased)


def test_without_any_anchor_there_is_no_volume() -> None:
    assert "no anchor" in refusal(without(PLAIN, ANCHORS, "erased")).data["fault"]


def test_an_anchor_that_cannot_be_read_is_not_said_to_be_missing() -> None:
    assert refusal(without(PLAIN, ANCHORS, "unreadable")).reason is Reason.MEDIA_UNREADABLE


def test_an_unreadable_sector_is_reported_as_such() -> None:
    (root, *_) = tags(PLAIN, FILE_ENTRY)
    fault = refusal(Image(PLAIN, bad=[range(root, root + 1)]))
    assert (fault.reason, fault.data["offset"]) == (Reason.MEDIA_UNREADABLE, str(root))


def test_a_disc_cut_short_is_refused_wherever_it_is_cut() -> None:
    for end in range(0, max(tags(PLAIN, FILE_ENTRY)), 4096 + 512):
        assert refusal(PLAIN[:end]).reason is Reason.MEDIA_CORRUPT


def test_a_chain_of_extents_that_leads_to_itself_ends() -> None:
    volume = bytearray(CHAINED)
    for at in tags(CHAINED, ALLOCATION_EXTENT):
        block = at // 2048 - PARTITION_START
        volume[at : at + 32] = descriptor(ALLOCATION_EXTENT, block, pack("<IIII", 0, 8, CONTINUATION | 2048, block))
    assert "no end" in refusal(bytes(volume)).data["fault"]


LONG_EXTENTS = write_volume(FILES, Layout(embed=False, allocation=LONG))
PIECES = write_volume(FILES, Layout(piece=1))
SCATTERED = write_volume({f"{n}": b"" for n in range(290)}, Layout(block_size=4096, revision=0x0250, metadata_piece=1))
WHOLE_BLOCKS = write_volume({"ovf-env.xml": content("ovf-env.xml", 4096)})
SHORT_SEQUENCES = pack("<IIII", 4096, MAIN_SEQUENCE, 4096, RESERVE_SEQUENCE)  # they end before the partition descriptor
ROOT, OVF = 0, 1  # the file entries, in order of their blocks

# What a descriptor would have to say for each fault: the volume, and (descriptor, which of them, field, value).
IMPOSSIBLE: dict[str, tuple[bytes, tuple[int, int | None, int, bytes]]] = {
    "a file entry does not fit its block": (PLAIN, (FILE_ENTRY, OVF, 172, pack("<I", 2048 - 175))),
    "a file entry does not fit its block ": (PLAIN, (FILE_ENTRY, OVF, 168, pack("<I", 0xFFFFFFFF))),
    "a file is longer than its extents": (WHOLE_BLOCKS, (FILE_ENTRY, OVF, 56, pack("<Q", 4097))),
    "a file is longer than its extents ": (PLAIN, (FILE_ENTRY, ROOT, 56, pack("<Q", 2000))),
    "a file is longer than its extents  ": (PIECES, (FILE_ENTRY, OVF, 176, bytes(4))),  # 4/12: the list ends there
    "an extent in the middle of a file ends in the middle of a block": (
        PIECES,
        (FILE_ENTRY, OVF, 176, pack("<I", 2047)),
    ),
    "an extent reaches beyond the end of its partition": (PLAIN, (FILE_ENTRY, OVF, 180, pack("<I", 0xFFFF))),
    "an extent reaches beyond the end of the disc": (PLAIN, (PARTITION, None, 188, b"\xff\xff\xff\xff")),
    "an extent in a partition that is not there": (LONG_EXTENTS, (FILE_ENTRY, OVF, 184, b"\1")),
    "an extent in a partition that is not there ": (PLAIN, (FILE_SET, None, 408, b"\7\7")),
    "an extent leads to blocks that are not recorded": (METADATA, (FILE_ENTRY, None, 176, pack("<I", 1 << 30 | 4096))),
    "allocation descriptors of type 2": (PLAIN, (FILE_ENTRY, OVF, 34, b"\2")),
    "the root directory is not a directory": (PLAIN, (FILE_ENTRY, ROOT, 27, b"\5")),
    "a directory ends within a file identifier": (LONG_EXTENTS, (FILE_ENTRY, ROOT, 56, pack("<Q", 45))),
    "a directory ends within a file identifier ": (LONG_EXTENTS, (FILE_ENTRY, ROOT, 56, pack("<Q", 85))),
    "a file name is not OSTA compressed Unicode": (LONG_EXTENTS, (FILE_IDENTIFIER, 1, 38, b"\x09")),
    "a partition map does not fit its table": (PLAIN, (LOGICAL_VOLUME, None, 441, b"\xff")),
    "a partition map does not fit its table ": (PLAIN, (LOGICAL_VOLUME, None, 441, b"\0")),
    "a partition map does not fit its table  ": (PLAIN, (LOGICAL_VOLUME, None, 268, b"\xff\xff\xff\xff")),
    "a partition map is of no known type": (PLAIN, (LOGICAL_VOLUME, None, 440, b"\3")),
    "no partition descriptor": (PLAIN, (LOGICAL_VOLUME, None, 444, b"\1")),
    "no partition descriptor ": (PLAIN, (ANCHOR, None, 16, SHORT_SEQUENCES)),
    "logical blocks and sectors differ in size": (PLAIN, (LOGICAL_VOLUME, None, 212, pack("<I", 512))),
    "no logical volume descriptor": (PLAIN, (ANCHOR, None, 16, bytes(16))),
    "a metadata file is not one": (METADATA, (LOGICAL_VOLUME, None, 486, METADATA_MAP[4:] + METADATA_MAP[:4])),
    "a metadata file in more pieces than any real one": (SCATTERED, (ANCHOR, None, 24, bytes(8))),
}


@pytest.mark.parametrize("fault", IMPOSSIBLE)
def test_refuses(fault: str) -> None:
    volume, (identifier, which, field, value) = IMPOSSIBLE[fault]
    error = refusal(edited(volume, identifier, field, value, only=which))
    assert error.reason in (Reason.MEDIA_CORRUPT, Reason.MEDIA_UNSUPPORTED)
    assert (error.data.get("fault") or error.data.get("feature")) == fault.rstrip()


def test_a_sequence_that_leads_to_itself_ends() -> None:
    volume = bytearray(PLAIN)
    for start in (MAIN_SEQUENCE, RESERVE_SEQUENCE):
        pointer = descriptor(VOLUME_DESCRIPTOR_POINTER, start, pack("<III484x", 9, 2048, start))
        volume[start * 2048 : start * 2048 + 512] = pointer
    assert refusal(bytes(volume)).data["fault"] == "no logical volume descriptor"


def test_a_disc_that_is_shorter_than_it_says_is_refused() -> None:
    image = Image(PLAIN[: tags(PLAIN, FILE_ENTRY)[ROOT] + 100])
    with pytest.raises(ProvisioningError, match="the disc ends early"):
        udf.read_files(image, len(PLAIN), {"ovf-env.xml": LARGEST})


# --- cost -------------------------------------------------------------------------------------------------------------


def test_an_azure_sized_disc_takes_few_reads() -> None:
    image = Image(PLAIN)
    assert read(image) == FILES
    assert len(image.reads) <= 20
    assert image.bytes_read <= 128 * 1024
