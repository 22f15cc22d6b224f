"""Partition tables as sfdisk and sgdisk write them, and what becomes of broken ones."""

from __future__ import annotations

import json
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minprov.errors import ProvisioningError, Reason
from minprov.formats.partitions import BIOS_BOOT, ESP, PartitionTable, move_backup, parse_partition_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
GPT = f"label: gpt\nsize=4MiB, type={BIOS_BOOT}\nsize=8MiB, type={ESP}, name=esp\ntype=linux, name=root\n"
MBR = "label: dos\nlabel-id: 0x1234abcd\nsize=4MiB, type=c\nsize=8MiB, type=5\nsize=4MiB, type=83, bootable\n"


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def parse(data: bytes) -> PartitionTable | None:
    return parse_partition_table(reader(data), len(data))


def partitioned(path: Path, script: str, size: int = 32 * MIB) -> bytes:
    """Return a disk with the table that sfdisk makes of the script."""
    path.write_bytes(b"")
    subprocess.run(["truncate", f"--size={size}", path], check=True)
    subprocess.run(["/usr/sbin/sfdisk", "--quiet", path], input=script.encode(), check=True)
    return path.read_bytes()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk.img"


def dumped(path: Path) -> list[tuple[int, int, str]]:
    """Return what sfdisk reads: (first byte, size, type) of each partition."""
    document = json.loads(subprocess.run(["/usr/sbin/sfdisk", "--json", path], check=True, capture_output=True).stdout)
    parts = document["partitiontable"]["partitions"]
    return [(part["start"] * 512, part["size"] * 512, part["type"].lower()) for part in parts]


def test_a_gpt_is_read_as_sfdisk_reads_it(disk: Path) -> None:
    table = parse(partitioned(disk, GPT))
    assert table is not None
    assert (table.kind, table.faults, table.sector_size) == ("gpt", (), 512)
    assert [(part.start, part.size, part.type) for part in table.partitions] == dumped(disk)
    assert [part.name for part in table.partitions] == ["", "esp", "root"]
    assert [part.is_esp for part in table.partitions] == [False, True, False]


def test_an_mbr_is_read_with_its_logical_partitions(disk: Path) -> None:
    partitioned(disk, MBR)
    logical = b"start=12288, size=2048, type=83\nstart=16384, size=2048, type=82\n"
    subprocess.run(["/usr/sbin/sfdisk", "--quiet", "--append", disk], input=logical, check=True)
    table = parse(disk.read_bytes())
    assert table is not None
    assert (table.kind, table.has_boot_code) == ("mbr", False)
    assert [(part.start, part.size, part.type.lstrip("0")) for part in table.partitions] == [
        row for row in dumped(disk) if row[2] != "5"
    ]
    assert [part.number for part in table.partitions] == [1, 3, 5, 6]
    assert [part.number for part in table.partitions if part.bootable] == [3]
    assert [part.uuid for part in table.partitions] == [f"1234abcd-{number:02x}" for number in (1, 3, 5, 6)]


def test_a_hybrid_table_is_told_from_a_protective_one(disk: Path) -> None:
    partitioned(disk, GPT)
    subprocess.run(["/usr/sbin/sgdisk", "--hybrid=3", disk], check=True, capture_output=True)
    table = parse(disk.read_bytes())
    assert table is not None
    assert table.kind == "hybrid"
    assert len(table.partitions) == 3


@pytest.mark.root
def test_a_gpt_of_large_sectors_is_read(disk: Path) -> None:
    disk.write_bytes(bytes(32 * MIB))
    attach: list[str | Path] = ["/usr/sbin/losetup", "--find", "--show", "--sector-size=4096", disk]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["/usr/sbin/sfdisk", "--quiet", "--no-reread", device], input=GPT.encode(), check=True)
    finally:
        subprocess.run(["/usr/sbin/losetup", "--detach", device], check=True)
    table = parse(disk.read_bytes())
    assert table is not None
    assert table.sector_size == 4096
    assert [part.size for part in table.partitions][:2] == [4 * MIB, 8 * MIB]


@pytest.mark.parametrize("data", [b"", bytes(512), bytes(MIB), bytes(510) + b"\x55\xaa"])
def test_a_disk_without_a_table_has_none(data: bytes) -> None:
    assert parse(data) is None


def test_damage_of_one_header_is_told_and_the_other_one_is_read(disk: Path) -> None:
    whole = partitioned(disk, GPT)
    first = parse(whole[:600] + b"x" + whole[601:])
    assert first is not None
    assert first.partitions
    assert first.faults == ("the first GPT header is damaged; its backup was read",)
    backup = parse(whole[:-512] + bytes(512))
    assert backup is not None
    assert backup.faults == ("the backup GPT header is damaged",)
    grown = parse(whole + bytes(MIB))
    assert grown is not None
    assert grown.faults == ("the backup GPT header is not at the end of the disk",)


def test_a_gpt_without_a_sound_header_is_an_error(disk: Path) -> None:
    whole = partitioned(disk, GPT)
    with pytest.raises(ProvisioningError) as caught:
        parse(whole[:600] + b"x" + whole[601:-512] + bytes(512))
    assert caught.value.reason is Reason.IMAGE_INVALID


def test_a_disk_that_was_cut_short_says_by_how_much(disk: Path) -> None:
    table = parse(partitioned(disk, MBR)[: 16 * MIB])
    assert table is not None
    assert table.faults == (f"partition 3 ends {MIB} bytes beyond the end of the disk",)


def moved(data: bytes, size: int) -> bytes:
    """Return the disk grown to `size`, its backup moved."""
    grown = bytearray(data.ljust(size, b"\0"))
    for offset, piece in move_backup(reader(data), len(data), size):
        grown[offset : offset + len(piece)] = piece
    return bytes(grown)


def test_the_backup_moves_as_sgdisk_moves_it(disk: Path) -> None:
    whole = partitioned(disk, GPT, 32 * MIB - 1536)
    ours = moved(whole, 33 * MIB)
    disk.write_bytes(whole.ljust(33 * MIB, b"\0"))
    subprocess.run(["/usr/sbin/sgdisk", "--move-second-header", disk], check=True, capture_output=True)
    theirs = disk.read_bytes()
    assert ours[458:462] == theirs[458:462]  # the protective entry's size
    for start in (512, len(ours) - 512):
        # sgdisk rounds the last usable sector down to its alignment, behind which it puts the backup's entries.
        for part in (slice(0, 16), slice(20, 48), slice(56, 72), slice(80, 512)):
            assert ours[start : start + 512][part] == theirs[start : start + 512][part]
    assert ours[1024 : 2 * 512 + 128 * 128] == theirs[1024 : 2 * 512 + 128 * 128]
    assert ours[-33 * 512 : -512] == ours[1024 : 2 * 512 + 128 * 128]
    disk.write_bytes(ours)
    verdict = subprocess.run(["/usr/sbin/sgdisk", "--verify", disk], check=True, capture_output=True, text=True).stdout
    assert "No problems found" in verdict
    table = parse(ours)
    assert table is not None
    assert table.faults == ()


def test_a_backup_in_its_place_stays(disk: Path) -> None:
    whole = partitioned(disk, GPT)
    assert move_backup(reader(whole), len(whole), len(whole)) == ()


def test_a_disk_that_grew_by_hand_gets_its_backup_moved_too(disk: Path) -> None:
    grown = partitioned(disk, GPT) + bytes(MIB)
    table = parse(moved(grown, len(grown)))
    assert table is not None
    assert table.faults == ()


def test_an_mbr_needs_no_move(disk: Path) -> None:
    whole = partitioned(disk, MBR)
    assert move_backup(reader(whole), len(whole), len(whole) + MIB) == ()


def test_a_disk_that_lost_its_end_is_refused(disk: Path) -> None:
    whole = partitioned(disk, GPT)[: 24 * MIB]
    with pytest.raises(ProvisioningError, match="beyond the end of the disk"):
        move_backup(reader(whole), len(whole), len(whole))


def test_a_chain_of_extended_records_ends() -> None:
    def record(*entries: tuple[int, int, int]) -> bytes:
        table = b"".join(struct.pack("<B3xB3xII", 0, *entry) for entry in entries)
        return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"

    loop = record((5, 1, 100)) + record((0x83, 1, 1), (5, 0, 1))
    table = parse(loop.ljust(MIB, b"\0"))
    assert table is not None
    assert len(table.partitions) == 1


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    directory = tmp_path_factory.mktemp("tables")
    return [
        partitioned(directory / "disk", script, 16 * MIB) for script in (GPT.replace("8M", "2M"), "label: dos\n,\n")
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_disk_gives_a_table_or_an_error(tables: list[bytes], data: st.DataObject) -> None:
    disk = bytearray(data.draw(st.sampled_from(tables)))
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.integers(440, 34 * 512) | st.integers(len(disk) - 512, len(disk) - 8))
        disk[offset : offset + 8] = data.draw(st.binary(min_size=8, max_size=8))
    reads = []

    def read(offset: int, length: int) -> bytes:
        reads.append(length)
        return bytes(disk[offset : offset + length])

    try:
        parse_partition_table(read, len(disk))
        move_backup(read, len(disk), len(disk) + MIB)
    except ProvisioningError as error:
        assert error.reason is Reason.IMAGE_INVALID
    assert sum(reads) < 8 * MIB
