"""A disk image as its owner has it: which format it is in, and the firmware that starts what is on it.

The image is only read: QEMU keeps what the guest writes in a temporary file of its own.
"""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.disk_image import BOOT_SIGNATURE, HEAD, TAIL, ImageFormat, recognise
from minprov.formats.partitions import parse_partition_table
from minprov.image.disk_file import open_disk
from minprov.image.layout import judge_layout

from .architecture import ARCHITECTURES, X64
from .machine import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .architecture import Architecture

# Where the firmware of a distribution is described (QEMU, docs/interop/firmware.json), in order of precedence.
_DESCRIPTIONS = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))


class DiskImage(NamedTuple):
    """An image and the name of QEMU's driver for it."""

    path: Path
    driver: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return QEMU's arguments for a disk that is /dev/sda, as on Azure, and loses what is written to it."""
        file = f"file={quoted(self.path)},format={self.driver},snapshot=on,cache=unsafe,if=none,id=disk"
        return ("-drive", file, "-device", "scsi-hd,drive=disk,bootindex=0")


def open_image(path: str | Path) -> DiskImage:
    """Find out what an image is.

    Raises: ProvisioningError(USAGE) if there is no such file, or it is no disk that anything could boot from.
    """
    path = Path(path).absolute()
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            file.seek(-min(TAIL, len(head)), 2)
            image_format = recognise(head, file.read(TAIL))
    except OSError as error:
        raise ProvisioningError(Reason.USAGE, image=path, detail=error.strerror) from error
    if image_format is ImageFormat.RAW and head[-2:] != BOOT_SIGNATURE:
        detail = "not a disk image: neither qcow2, VHD, VHDX nor VMDK, and no boot sector"
        raise ProvisioningError(Reason.USAGE, image=path, detail=detail)
    return DiskImage(path, image_format.driver)


def find_architecture(image: DiskImage) -> Architecture:
    """Return what the loader on a plain disk's EFI system partition is for; of other disks it is not known, and x64.

    Raises: ProvisioningError if the image cannot be read.
    """
    if image.driver not in (ImageFormat.RAW.driver, ImageFormat.VHD.driver):
        return X64
    with open_disk(str(image.path)) as disk:
        if not disk.is_plain:
            return X64
        layout = judge_layout(disk.path, parse_partition_table(disk.read, disk.size))
    return ARCHITECTURES[layout.architecture] if layout.architecture else X64


def uefi_arguments(
    directory: Path, architecture: Architecture = X64, descriptions: Sequence[Path] = _DESCRIPTIONS
) -> tuple[str, ...]:
    """Return QEMU's arguments for the UEFI firmware that this machine has; its variables are kept in `directory`.

    Raises: ProvisioningError(TOOL_NOT_FOUND) if there is none.
    """
    for mapping in _described_uefi(descriptions, architecture):
        variables = directory / "uefi-variables.fd"
        variables.write_bytes(Path(mapping["nvram-template"]["filename"]).read_bytes())
        code = Path(mapping["executable"]["filename"])
        return (
            *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={quoted(code)}"),
            *("-drive", f"if=pflash,unit=1,format=raw,file={quoted(variables)}"),
        )
    action = f"install it (Debian: {architecture.firmware_package})"
    raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="UEFI firmware for QEMU", action=action)


def _described_uefi(directories: Sequence[Path], architecture: Architecture) -> Iterator[dict[str, Any]]:
    for path in sorted((path for directory in directories for path in directory.glob("*.json")), key=lambda p: p.name):
        description = json.loads(path.read_bytes())
        mapping = description["mapping"]
        fits = any(
            target["architecture"] == architecture.name
            and any(fnmatch.fnmatchcase(architecture.machine, pattern) for pattern in target["machines"])
            for target in description["targets"]
        )
        needs_more = {"requires-smm", "secure-boot"} & set(description["features"])
        if fits and not needs_more and "uefi" in description["interface-types"] and mapping["device"] == "flash":
            yield mapping
