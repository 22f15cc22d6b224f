"""A disk for arm64 that is one EFI program: Debian's kernel and an initramfs, which is the whole system.

Nothing of arm64 runs while it is made, so that this machine's kernel need not know how: packages are extracted and not
installed, and what their scripts would have written is in `trees/arm64`.
"""

from __future__ import annotations

from pathlib import Path

from tests.vm.bootable import ESP_START, SECTOR, write_esp
from tests.vm.initramfs import make_initramfs
from tests.vm.tools import run

PACKAGES = ("busybox-static", "linux-image-cloud-arm64", "openssh-server", "passwd", "systemd-boot-efi", "udhcpc")
# What of them the system is made of.
LIBRARIES = ("lib/aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu")
KEPT = ("bin/busybox", "etc", "usr/bin/ssh-keygen", "usr/sbin", *LIBRARIES)
MODULES = ("virtio_pci", "virtio_scsi", "sr_mod", "virtio_net", "virtio_rng")
STUB = "usr/lib/systemd/boot/efi/linuxaa64.efi.stub"
# Where the sections of the program are in memory: with this systemd's stub whoever makes it says so.
SECTIONS = {"cmdline": 0x30000, "linux": 0x2000000, "initrd": 0x6000000}
ESP_SIZE = 262144  # sectors


def copy_system(packages: Path, root: Path) -> None:
    """Copy from the extracted packages what the system is made of."""
    for directory in ("dev", "home", "proc", "root", "run", "sys", "tmp", "var"):
        (root / directory).mkdir(parents=True)
    run("cp", "--archive", "--parents", *KEPT, root, cwd=packages)


def make_disk(packages: Path, root: Path, disk: Path) -> None:
    """Write a disk from the system in `root` and the kernel of the extracted packages."""
    work = root.parent
    parts = {name: work / name for name in SECTIONS}
    make_initramfs(root, packages, MODULES, parts["initrd"])
    (parts["linux"],) = packages.glob("boot/vmlinuz-*")
    parts["cmdline"].write_text("console=ttyAMA0 panic=-1 net.ifnames=0")
    sections: list[str] = []
    for name, address in SECTIONS.items():
        sections += [f"--add-section=.{name}={parts[name]}", f"--change-section-vma=.{name}={address:#x}"]
    program = work / "program.efi"
    run("aarch64-linux-gnu-objcopy", *sections, packages / STUB, program)
    with disk.open("wb") as file:
        file.truncate((ESP_START + ESP_SIZE) * SECTOR)
    run("sfdisk", "--quiet", disk, stdin=f"label: dos\nstart={ESP_START}, size={ESP_SIZE}, type=ef\n")
    write_esp(disk, program, "BOOTAA64.EFI", sectors=ESP_SIZE)
