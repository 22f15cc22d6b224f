"""A disk with a bootloader of its own, as somebody's image has: GRUB for BIOS and for UEFI, and a partition table.

It is written without mounting anything: GRUB's two images for BIOS lie before the first partition where they expect
each other (boot.img loads sector 1, where core.img begins, which expects the rest of itself in the sectors behind).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SECTOR = 512
ESP_START, ESP_SIZE = 2048, 32768  # sectors
ROOT_START = ESP_START + ESP_SIZE
BOOT_CODE_SIZE = 440  # what of the first sector is before the partition table

# GRUB finds the partition by what is on it; the kernel finds it where Azure has its OS disk.
GRUB_CONFIG = """\
search --set=root --file /vmlinuz
linux /vmlinuz root=/dev/sda2 rw console=ttyS0 quiet
initrd /initrd.img
boot
"""
MODULES = ("part_msdos", "ext2", "fat", "search", "linux", "normal", "configfile")


def make_bootable_disk(root: Path, disk: Path, *, size: str) -> None:
    """Write a disk whose second partition has the tree `root`, kernel and initramfs of its own included."""
    work = disk.parent
    file_system = work / "root.ext4"
    _run("mke2fs", "-q", "-t", "ext4", "-d", root, file_system, size)
    table = f"label: dos\nstart={ESP_START}, size={ESP_SIZE}, type=ef\nstart={ROOT_START}, type=83, bootable\n"
    with disk.open("wb") as file:
        file.truncate(ROOT_START * SECTOR + file_system.stat().st_size)
    _run("sfdisk", "--quiet", disk, stdin=table)
    _copy(file_system, disk, sector=ROOT_START)
    file_system.unlink()
    _install_for_bios(work, disk)
    _install_for_uefi(work, disk)


def _install_for_bios(work: Path, disk: Path) -> None:
    core = _grub_image(work, "i386-pc", "biosdisk")
    boot_code = work / "boot.img"
    boot_code.write_bytes(Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()[:BOOT_CODE_SIZE])
    _copy(boot_code, disk, sector=0)
    assert core.stat().st_size < (ESP_START - 1) * SECTOR
    _copy(core, disk, sector=1)


def _install_for_uefi(work: Path, disk: Path) -> None:
    write_esp(disk, _grub_image(work, "x86_64-efi"), "BOOTX64.EFI", sectors=ESP_SIZE)


def write_esp(disk: Path, program: Path, name: str, *, sectors: int) -> None:
    """Write the file system that UEFI looks for, with the program that it starts."""
    esp = disk.with_name("esp.fat")
    with esp.open("wb") as file:
        file.truncate(sectors * SECTOR)
    _run("mkfs.fat", esp)
    _run("mmd", "-i", esp, "::EFI", "::EFI/BOOT")
    _run("mcopy", "-i", esp, program, f"::EFI/BOOT/{name}")
    _copy(esp, disk, sector=ESP_START)
    esp.unlink()


def _grub_image(work: Path, platform: str, *modules: str) -> Path:
    config, image = work / "grub.cfg", work / f"grub-{platform}.img"
    config.write_text(GRUB_CONFIG)
    _run("grub-mkimage", "-O", platform, "-p", "/", "-c", config, "-o", image, *MODULES, *modules)
    return image


def _copy(source: Path, disk: Path, *, sector: int) -> None:
    """Copy a file to a place on a fresh disk; what is zero stays a hole."""
    with source.open("rb") as piece, disk.open("r+b") as whole:
        whole.seek(sector * SECTOR)
        while data := piece.read(1 << 20):
            if any(data):
                whole.write(data)
            else:
                whole.seek(len(data), os.SEEK_CUR)


def _run(*argv: str | Path, stdin: str = "") -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(argv, input=stdin, text=True, check=True, env=os.environ | {"PATH": path}, stdout=subprocess.DEVNULL)
