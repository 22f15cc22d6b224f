"""Trees of systems as data: one text file for each, made into a directory by a test.

A line that begins with ``== `` names a file, and what follows is in it:

    == PATH [MODE]            a file
    == PATH/                  an empty directory
    == PATH -> TARGET         a link
    == PATH fifo              a FIFO
    == PATH kernel RELEASE    an x86 kernel's header
    == PATH initramfs FORMAT  an archive of the files that are named; with ``NAME: TEXT`` they have contents
    == PATH kernel-with-config RELEASE   the same with the configuration that follows in it, as CONFIG_IKCONFIG has it
    == PATH signed            an EFI program with a signature by the authority that is named
    == PATH shim              the same with the certificate of the vendor whom the second line names
    == PATH tar NAME          an archive with one file of that name, which has what follows
    == PATH grub              GRUB's program for EFI with the configuration that follows in it
    == PATH signed-kernel RELEASE   an x86 kernel, signed by the authority that is named, configured as follows
    == + NAME                 all of trees/NAME.part
    == PATH uki RELEASE       a unified kernel image: the lines are its command line, then the files of its initramfs;
                              it is signed by a vendor
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.image.signing import efi_program, shim, signed

MODULE, MEMDISK, CONFIG = range(3)
VENDOR = "a vendor"
TREES = Path(__file__).parent / "trees"
COMPRESSIONS = {
    "xz": ["xz", "-c", "--check=crc32"],
    "zstd": ["zstd", "-cq"],
    "lz4": ["lz4", "-clq"],
    "bzip2": ["bzip2", "-c"],
}


def make_tree(name: str, root: Path) -> None:
    """Write the tree that is recorded under a name."""
    _make(TREES / f"{name}.tree", root)


def add_part(name: str, root: Path) -> None:
    """Add what several trees may have."""
    _make(TREES / f"{name}.part", root)


def _make(file: Path, root: Path) -> None:
    for block in file.read_text().split("\n== ")[1:]:
        head, _, body = block.partition("\n")
        if head.startswith("+ "):
            add_part(head[2:], root)
        else:
            write_entry(root, head, body.strip("\n") + "\n" if body.strip() else "")


def write_entry(root: Path, head: str, body: str) -> None:
    """Write one file as the line that names it says."""
    words = head.split(" ")
    path = root / words[0].lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    match words[1:]:
        case ["->", target]:
            path.symlink_to(target)
        case ["fifo"]:
            os.mkfifo(path)
        case ["kernel", release]:
            path.write_bytes(kernel_image(release))
        case ["kernel-with-config", release]:
            path.write_bytes(kernel_image(release, body))
        case ["signed"]:
            path.write_bytes(signed(efi_program({".text": b"code"}), body.strip()))
        case ["tar", name]:
            path.write_bytes(tar_archive(name, body))
        case ["grub"]:
            path.write_bytes(efi_program({".text": b"code", "mods": grub_modules({CONFIG: body.encode()})}))
        case ["shim"]:
            authority, vendor = body.splitlines()
            path.write_bytes(signed(shim(vendor), authority))
        case ["signed-kernel", release]:
            authority, _, config = body.partition("\n")
            path.write_bytes(signed(efi_kernel(release, config), authority))
        case ["initramfs", compression]:
            path.write_bytes(initramfs(body, compression))
        case ["uki", release]:
            options, _, files = body.partition("\n")
            path.write_bytes(signed(unified_image(release, options, initramfs(files, "zstd")), VENDOR))
        case [mode]:
            path.write_text(body)
            path.chmod(int(mode, 8))
        case _ if head.endswith("/"):
            path.mkdir(exist_ok=True)
        case _:
            path.write_text(body)


def kernel_image(release: str, config: str = "") -> bytes:
    """Return as much of an x86 kernel as says which one it is, and how it was configured."""
    image = bytearray(0x400)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x100).to_bytes(2, "little")
    start = bytes(image[:0x300]) + f"{release} (builder@host) #1 SMP".encode().ljust(256, b"\0")
    if not config:
        return start
    code = b"code" + b"IKCFG_ST" + gzip.compress(config.encode()) + b"IKCFG_ED" + bytes(9999)
    return start + compressed(code, "zstd")


def initramfs(listing: str, compression: str) -> bytes:
    """Return an archive of microcode as it is, followed by one of the files that are listed, compressed."""
    names = [line for line in listing.splitlines() if line]
    early = archive({"kernel/x86/microcode/GenuineIntel.bin": "microcode"})
    contents = {name: text.strip() for name, _, text in (line.partition(":") for line in names)}
    return early + bytes(-len(early) % 512) + compressed(archive(contents), compression)


def compressed(data: bytes, compression: str) -> bytes:
    if compression == "none":
        return data
    if compression == "gzip":
        return gzip.compress(data)
    if not shutil.which(COMPRESSIONS[compression][0]):
        pytest.skip(f"needs {COMPRESSIONS[compression][0]}")
    return subprocess.run(COMPRESSIONS[compression], input=data, capture_output=True, check=True).stdout


def archive(files: dict[str, str]) -> bytes:
    """Return files as a cpio archive in the form "newc"."""
    made = bytearray()
    for number, (name, text) in enumerate([*files.items(), ("TRAILER!!!", "")], 1):
        fields = (number, 0o100644, 0, 0, 1, 0, len(text), 0, 0, 0, 0, len(name) + 1, 0)
        made += b"070701" + b"".join(f"{field:08x}".encode() for field in fields) + name.encode() + b"\0"
        made += bytes(-len(made) % 4) + text.encode()
        made += bytes(-len(made) % 4)
    return bytes(made)


def unified_image(release: str, options: str, initrd: bytes) -> bytes:
    """Return a PE file with the sections of a unified kernel image."""
    sections = {".uname": release.encode(), ".cmdline": options.encode(), ".linux": b"MZ", ".initrd": initrd}
    return efi_program(sections)


def efi_kernel(release: str, config: str = "") -> bytes:
    """Return a kernel that is an EFI program, too, as CONFIG_EFI_STUB makes it."""
    kernel = kernel_image(release, config)
    program = bytearray(efi_program({".text": kernel[0x200:].ljust(0x200, b"\0")}))
    program[0x1F1:0x200] = kernel[0x1F1:0x200]
    return bytes(program)


def tar_archive(name: str, text: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(text.encode())
        archive.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def grub_modules(objects: dict[int, bytes]) -> bytes:
    """Return what grub-mkimage puts into the section "mods": objects by their kind."""
    padded = {kind: data + bytes(8 - len(data) % 8) for kind, data in objects.items()}
    body = b"".join(struct.pack("<II", kind, 8 + len(data)) + data for kind, data in padded.items())
    return struct.pack("<4sIQQ", b"mimg", 0, 24, 24 + len(body)) + body
