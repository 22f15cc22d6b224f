"""What tells whether KVM can be used: a boot sector that enters 64-bit mode, as every kernel does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from minprov import emulator
from minprov.emulator.guest import acceleration
from minprov.emulator.guest.tools import find_tool

pytestmark = pytest.mark.vm
DATA = Path(emulator.__file__).parent / "data"


def test_the_boot_sector_ends_in_64_bit_mode() -> None:
    assert acceleration.enters_long_mode(find_tool("qemu-system-x86_64"), "tcg")


def test_a_machine_that_hangs_before_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sector = tmp_path / "long-mode.img"
    sector.write_bytes(b"\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa")  # jumps to itself
    monkeypatch.setattr(acceleration, "_LONG_MODE", sector)

    assert not acceleration.enters_long_mode(find_tool("qemu-system-x86_64"), "tcg", 1.0)


@pytest.mark.skipif(not shutil.which("as"), reason="needs as")
def test_the_boot_sector_is_its_source(tmp_path: Path) -> None:
    built = tmp_path / "long-mode"
    subprocess.run(["as", DATA / "long-mode.S", "-o", built.with_suffix(".o")], check=True)
    link: list[str | Path] = ["ld", "-Ttext=0x7c00", "--oformat", "binary", "-o", built, built.with_suffix(".o")]
    subprocess.run(link, check=True)
    assert built.read_bytes() == (DATA / "long-mode.img").read_bytes()
