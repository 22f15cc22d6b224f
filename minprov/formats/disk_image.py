"""The form in which a file holds a disk, told by how it begins and ends.

A fixed VHD begins with the disk itself and only ends with its footer. (QEMU, docs/interop/qcow2.txt; the specifications
of VHD, VHDX and VMDK.)
"""

from __future__ import annotations

from minprov.definitions import Enum
from minprov.formats import vhd_footer

HEAD = 512
TAIL = vhd_footer.SIZE
BOOT_SIGNATURE = b"\x55\xaa"
"""At the end of the first sector of a disk that firmware starts, a GPT disk included."""


class ImageFormat(Enum):
    """A form of disk images; `driver` is QEMU's name for it."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VHD = "vhd"
    VHDX = "vhdx"
    VMDK = "vmdk"

    @property
    def driver(self) -> str:
        """Return QEMU's name for the format, after Virtual PC in the case of VHD."""
        return "vpc" if self is ImageFormat.VHD else self.value


_MAGIC = {
    b"QFI\xfb": ImageFormat.QCOW2,
    b"vhdxfile": ImageFormat.VHDX,
    b"KDMV": ImageFormat.VMDK,
    vhd_footer.COOKIE: ImageFormat.VHD,  # dynamic or differencing
}

_NO_DISKS = {
    (0, b"\x1f\x8b"): "compressed by gzip",
    (0, b"\xfd7zXZ\0"): "compressed by xz",
    (0, b"\x28\xb5\x2f\xfd"): "compressed by zstd",
    (0, b"BZh"): "compressed by bzip2",
    (0, b"PK\3\4"): "a ZIP archive",
    (257, b"ustar"): "a tar archive",
    (0, b"# Disk DescriptorFile"): "the description of a VMDK, whose data is in other files",
    (64, b"\x7f\x10\xda\xbe"): "an image of VirtualBox (VDI)",
}


def recognise(head: bytes, tail: bytes) -> ImageFormat:
    """Return the format of a file that begins and ends so; raw if it has no mark of another one."""
    for magic, image_format in _MAGIC.items():
        if head.startswith(magic):
            return image_format
    return ImageFormat.VHD if tail.startswith(vhd_footer.COOKIE) else ImageFormat.RAW


def find_no_disk(head: bytes) -> str | None:
    """Say what a file is that would be taken for a raw disk, and whose bytes are none; None if it may be one."""
    if head.endswith(BOOT_SIGNATURE):
        return None
    found = (what for (place, magic), what in _NO_DISKS.items() if head[place:].startswith(magic))
    return next(found, None)
