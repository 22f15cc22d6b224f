"""A disk image as its owner has it: which format it is in, and the firmware that starts what is on it.

The image is only read: QEMU keeps what the guest writes in a temporary file of its own.
"""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from minprov.errors import ProvisioningError, Reason
from minprov.formats.disk_image import BOOT_SIGNATURE, HEAD, TAIL, ImageFormat, recognise

from .machine import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Where the firmware of a distribution is described (QEMU, docs/interop/firmware.json), in order of precedence.
_DESCRIPTIONS = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
_MACHINE = "pc-i440fx-7.2"


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


def uefi_arguments(directory: Path, descriptions: Sequence[Path] = _DESCRIPTIONS) -> tuple[str, ...]:
    """Return QEMU's arguments for the UEFI firmware that this machine has; its variables are kept in `directory`.

    Raises: ProvisioningError(TOOL_NOT_FOUND) if there is none.
    """
    for mapping in _described_uefi(descriptions):
        variables = directory / "uefi-variables.fd"
        variables.write_bytes(Path(mapping["nvram-template"]["filename"]).read_bytes())
        code = Path(mapping["executable"]["filename"])
        return (
            *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={quoted(code)}"),
            *("-drive", f"if=pflash,unit=1,format=raw,file={quoted(variables)}"),
        )
    raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="UEFI firmware for QEMU", action="apt install ovmf")


def _described_uefi(directories: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in sorted((path for directory in directories for path in directory.glob("*.json")), key=lambda p: p.name):
        description = json.loads(path.read_bytes())
        mapping = description["mapping"]
        fits = any(
            target["architecture"] == "x86_64"
            and any(fnmatch.fnmatchcase(_MACHINE, pattern) for pattern in target["machines"])
            for target in description["targets"]
        )
        needs_more = {"requires-smm", "secure-boot"} & set(description["features"])
        if fits and not needs_more and "uefi" in description["interface-types"] and mapping["device"] == "flash":
            yield mapping
