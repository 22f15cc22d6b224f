"""The provisioning media as an image file, written by pycdlib (the extra ``minprov[emulator]``).

The image is a bridge of UDF and ISO 9660 with Joliet names, so that every reader finds the file system it knows; the
`sample` is a pure UDF one. The names at the root are those that cloud-init and waagent look for.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason

from .ovf_env import build_ovf_env

if TYPE_CHECKING:
    from pathlib import Path

    from .vm import VirtualMachine

TAG_FILE = "E6DA6616-8EC4-48E0-BE93-58CE6ACE3CFB.tag"


def media_files(vm: VirtualMachine) -> dict[str, bytes]:
    """Return the files at the root of the disc; CustomData.bin has the bytes that the ovf-env has in base64."""
    files = {"ovf-env.xml": build_ovf_env(vm), TAG_FILE: b""}
    if vm.custom_data is not None:
        files["CustomData.bin"] = vm.custom_data
    return files


def write_media(path: str | Path, vm: VirtualMachine) -> None:
    """Write the disc of a VM to an image file.

    Raises: ProvisioningError(TOOL_NOT_FOUND) without pycdlib, ProvisioningError(WRITE_FAILED).
    """
    try:
        from pycdlib import PyCdlib
    except ImportError as error:
        raise ProvisioningError(
            Reason.TOOL_NOT_FOUND, tool="pycdlib", action="pip install 'minprov[emulator]'"
        ) from error
    disc = PyCdlib()
    disc.new(joliet=3, udf="2.60", vol_ident="PROVISIONING")
    for index, (name, data) in enumerate(media_files(vm).items()):
        iso_path = f"/FILE{index}.{name.rpartition('.')[2].upper()};1"
        disc.add_fp(io.BytesIO(data), len(data), iso_path=iso_path, joliet_path=f"/{name}", udf_path=f"/{name}")
    try:
        disc.write(str(path))
    except OSError as error:
        raise ProvisioningError(Reason.WRITE_FAILED, path=path, detail=error) from error
    finally:
        disc.close()
