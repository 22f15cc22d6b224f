"""Superblocks as the programs that make file systems write them; LVM, LUKS and md as data."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.formats.superblocks import Superblock, recognise_contents

MIB = 1 << 20
RECORDED = Path(__file__).parent / "superblocks"
"""What pvcreate (LVM 2.03.16), cryptsetup (2.6.1) and, in a guest, mdadm (4.2) wrote, as xxd(1) without zeros."""
UUID = "2f6b2d6e-3d2b-4c5a-9a1e-0d1c2b3a4f5e"


def recognise(data: bytes) -> Superblock | None:
    return recognise_contents(lambda offset, length: data[offset : offset + length], len(data))


@pytest.mark.parametrize(
    ("command", "size", "expected"),
    [
        (f"mkfs.ext4 -q -U {UUID} -L root", 8, Superblock("ext4", UUID, "root")),
        (f"mkfs.xfs -q -m uuid={UUID} -L root", 300, Superblock("xfs", UUID, "root")),
        (f"mkfs.btrfs -q -U {UUID} -L root", 120, Superblock("btrfs", UUID, "root")),
        ("mkfs.vfat -F 32 -i 1234ABCD -n EFI", 40, Superblock("vfat", "1234-ABCD", "EFI")),
        ("mkfs.vfat -F 16 -i 1234ABCD -n EFI", 16, Superblock("vfat", "1234-ABCD", "EFI")),
        (f"mkswap -q -U {UUID} -L swap", 4, Superblock("swap", UUID, "swap")),
    ],
)
def test_what_mkfs_makes_is_recognised(tmp_path: Path, command: str, size: int, expected: Superblock) -> None:
    path = tmp_path / "disk"
    path.touch()
    subprocess.run(["truncate", f"--size={size}M", path], check=True)
    program, *options = command.split()
    subprocess.run([f"/usr/sbin/{program}", *options, path], check=True, capture_output=True)
    with path.open("rb") as disk:
        assert recognise(disk.read(2 * MIB).ljust(size * MIB, b"\0")) == expected


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("lvm2", 64, Superblock("LVM", "H7BUAL-qyda-DWKH-PCMY-rVcH-kd0j-bfDLKg")),
        ("luks1", 64, Superblock("LUKS", "ee588e47-6199-4116-a3f4-4476c1c44695")),
        ("luks2", 64, Superblock("LUKS", "e8f11f51-88d1-42dd-8a2a-a78783e8738a")),
        ("md-0.90", 16, Superblock("md")),
        ("md-1.0", 16, Superblock("md")),
        ("md-1.1", 16, Superblock("md", "b4125cba-938f-d333-b9d8-fe20a7b6d0fd")),
        ("md-1.2", 16, Superblock("md", "607c301c-3fe2-063b-21c4-9717d96091c0")),
    ],
)
def test_recorded_layers_are_told_as_blkid_tells_them(name: str, size: int, expected: Superblock) -> None:
    data = bytearray(size * MIB)
    for line in (RECORDED / f"{name}.hex").read_text().splitlines():
        offset, _, content = line.partition(":")
        piece = bytes.fromhex(content)
        data[int(offset, 16) : int(offset, 16) + len(piece)] = piece
    assert recognise(bytes(data)) == expected


def at(offset: int, content: bytes) -> bytes:
    return (bytes(offset) + content).ljust(MIB, b"\0")


MD = bytes.fromhex("fc4e2ba901000000")
PV = "Aq1Cd0-3kAd-hTzF-sg2u-Xq8m-7aQm-1LxYzE"
PV_ON_DISK = PV.replace("-", "").encode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (at(0, b"LUKS\xba\xbe\0\2".ljust(168, b"\0") + UUID.encode()), Superblock("LUKS", UUID)),
        (at(512, b"LABELONE" + bytes(16) + b"LVM2 001" + PV_ON_DISK), Superblock("LVM", PV)),
        (at(0, MD), Superblock("md")),
        (at(4096, MD), Superblock("md")),
        (at(MIB - 0x2000, MD), Superblock("md")),
        (at(MIB - 0x10000, MD), Superblock("md")),
        (at(0, b"hsqs"), Superblock("squashfs")),
        (at(1024, bytes.fromhex("e2e1f5e0")), Superblock("erofs")),
        (at(1024, bytes.fromhex("1020f5f2")), Superblock("f2fs")),
        (at(3, b"NTFS    "), Superblock("ntfs")),
        (bytes(MIB), None),
        (b"", None),
    ],
)
def test_layers_and_other_file_systems_are_recognised(data: bytes, expected: Superblock | None) -> None:
    assert recognise(data) == expected


def test_a_mirrored_file_system_is_a_member_of_an_array(tmp_path: Path) -> None:
    # Metadata 1.0 stands at the end of the member, and the file system at its start.
    path = tmp_path / "disk"
    path.write_bytes(bytes(8 * MIB))
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", path], check=True)
    data = path.read_bytes()
    assert recognise(data[: 8 * MIB - 0x2000] + MD.ljust(0x2000, b"\0")) == Superblock("md")


@given(st.binary(max_size=2048) | st.binary(max_size=600).map(lambda data: data.ljust(510, b"\0") + b"\x55\xaa"))
def test_any_bytes_are_something_or_nothing(data: bytes) -> None:
    found = recognise(data)
    assert found is None or found.kind
