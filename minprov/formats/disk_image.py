"""The form in which a file holds a disk, told by how it begins and ends.

A fixed VHD begins with the disk itself and only ends with its footer. (QEMU, docs/interop/qcow2.txt; the specifications
of VHD, VHDX and VMDK.)
"""

from __future__ import annotations

from enum import Enum

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


def recognise(head: bytes, tail: bytes) -> ImageFormat:
    """Return the format of a file that begins and ends so; raw if it has no mark of another one."""
    for magic, image_format in _MAGIC.items():
        if head.startswith(magic):
            return image_format
    return ImageFormat.VHD if tail.startswith(vhd_footer.COOKIE) else ImageFormat.RAW
