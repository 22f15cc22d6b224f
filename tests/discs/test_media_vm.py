"""Real optical drives: their states, their faults, their trays, and a kernel with and without udf."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from tests.discs.media_samples import DRIVE_FILES
from tests.discs.udf_writer import write_volume
from tests.minivm import run_in_guest

CHECKS = [
    "check_discovery",
    "check_empty_drive",
    "check_bad_sector",
    "check_kernel_without_a_driver",
    "check_kernel_with_a_driver",
    "check_mounted_disc",
    "check_late_drive",
    "check_eject",
]


@pytest.mark.vm
@pytest.mark.timeout(600)
def test_real_drives(tmp_path: Path) -> None:
    sparable = Path(__file__).parents[1] / "data/media/udf-2.01-sparable.img.xz"
    volume = write_volume(DRIVE_FILES)
    bad_sector = volume.index(DRIVE_FILES["CustomData.bin"]) // 512 + 60
    discs = [volume, None, write_volume({"ovf-env.xml": b"<foreign/>"}), lzma.decompress(sparable.read_bytes()), volume]
    devices = ["-device", "virtio-scsi-pci"]
    for target, disc in enumerate(discs):
        drive = f"scsi-cd,scsi-id={target}"
        if disc:
            image = tmp_path / f"{target}.img"
            image.write_bytes(disc)
            backend = f"driver=raw,node-name=disc{target},read-only=on"
            if target == 4:
                backend += f",file.driver=blkdebug,file.image.driver=file,file.image.filename={image}"
                backend += f",file.inject-error.0.event=read_aio,file.inject-error.0.sector={bad_sector}"
                backend += ",file.inject-error.0.errno=5"
            else:
                backend += f",file.driver=file,file.filename={image}"
            devices += ["-blockdev", backend]
            drive += f",drive=disc{target}"
        devices += ["-device", drive]
    made = run_in_guest(
        "tests/discs/media_in_guest.py", modules=["virtio_scsi", "sr_mod"], idle_modules=["udf"], devices=devices
    )
    assert made["log"].decode().split() == CHECKS
