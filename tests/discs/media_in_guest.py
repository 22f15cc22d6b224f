"""Runs in the guest of test_media_vm.py: what only real drives can show. Each check prints its name when it holds.

The drives are told apart by their SCSI target: `MEDIA` has the media, the next is empty, and so on. The udf driver is
there and not loaded, until it is asked for.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from hashlib import sha256

from minprov.discs.drive import CDROM_DRIVE_STATUS, CDSL_CURRENT, eject
from minprov.discs.reader import Media, read_media
from minprov.discs.search import Surroundings, find_media
from minprov.errors import ProvisioningError, Reason
from tests.discs.media_samples import DRIVE_FILES

MEDIA, EMPTY, FOREIGN, KERNEL, BAD = range(5)
NO_DISC, TRAY_OPEN = 1, 2


def drives() -> dict[int, str]:
    """Return the drives by target."""
    found = {}
    for name in os.listdir("/sys/block"):
        if name.startswith("sr"):
            target = os.path.basename(os.path.realpath(f"/sys/block/{name}/device")).split(":")[2]
            found[int(target)] = f"/dev/{name}"
    return found


def accept(ovf_env: bytes) -> None:
    if ovf_env != DRIVE_FILES["ovf-env.xml"]:
        raise ProvisioningError(Reason.OVF_FOREIGN)


def fault_of(device: str) -> ProvisioningError:
    try:
        media = read_media(device)
    except ProvisioningError as error:
        return error
    raise AssertionError(f"was read: {media}")


def is_the_media(media: Media, detail: str) -> None:
    assert (media.ovf_env, media.custom_data) == (DRIVE_FILES["ovf-env.xml"], DRIVE_FILES["CustomData.bin"])
    assert (media.device, media.detail) == (drives()[MEDIA], detail), media


def status(device: str) -> int:
    descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return fcntl.ioctl(descriptor, CDROM_DRIVE_STATUS, CDSL_CURRENT)
    finally:
        os.close(descriptor)


def file_systems() -> str:
    with open("/proc/filesystems") as file:
        return file.read()


def mounts() -> str:
    with open("/proc/self/mountinfo") as file:
        return file.read()


def check_discovery() -> None:
    assert "udf" not in file_systems()
    is_the_media(find_media([], accept=accept), f"{drives()[MEDIA]}, UDF 1.02")


def check_empty_drive() -> None:
    assert fault_of(drives()[EMPTY]).data == {"path": drives()[EMPTY], "detail": "no medium"}


def check_bad_sector() -> None:
    fault = fault_of(drives()[BAD])
    assert (fault.reason, fault.data["detail"]) == (Reason.MEDIA_UNREADABLE, "Input/output error"), fault


def check_kernel_without_a_driver() -> None:
    fault = fault_of(drives()[KERNEL])
    assert fault.data["feature"] == "*UDF Sparable Partition"
    assert fault.data["kernel"] == "udf: No such device; iso9660: No such device", fault


def check_kernel_with_a_driver() -> None:
    subprocess.run(["modprobe", "udf"], check=True)
    before = mounts()
    media = read_media(drives()[KERNEL])
    assert media.detail.startswith(f"{drives()[KERNEL]}, udf by the kernel"), media
    with open("tests/data/media/manifest.json") as file:
        expected = json.load(file)["images"]["udf-2.01-sparable.img"]
    assert sha256(media.ovf_env).hexdigest() == expected["ovf-env.xml"]
    assert sha256(media.custom_data or b"").hexdigest() == expected["CustomData.bin"]
    assert mounts() == before


def check_mounted_disc() -> None:
    device = drives()[MEDIA]
    subprocess.run(["mount", "-t", "udf", "-o", "ro", device, "/mnt"], check=True)
    try:
        is_the_media(find_media([], accept=accept), "/mnt, directory")
    finally:
        subprocess.run(["umount", "/mnt"], check=True)


def check_late_drive() -> None:
    """A drive that the kernel finds while it is being waited for."""
    device = drives()[MEDIA]
    with open(f"/sys/block/{os.path.basename(device)}/device/delete", "w") as file:
        file.write("1")
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            with open("/sys/class/scsi_host/host0/scan", "w") as file:
                file.write("0 0 0")

    surroundings = Surroundings(pause=pause)
    media = find_media([], accept=accept, give_up=lambda: len(pauses) == 600, surroundings=surroundings)
    is_the_media(media, f"{drives()[MEDIA]}, UDF 1.02")
    assert len(pauses) >= 3


def check_eject() -> None:
    device = drives()[MEDIA]
    eject(device)
    assert status(device) in (NO_DISC, TRAY_OPEN)
    assert fault_of(device).data["detail"] == "no medium"


def main() -> None:
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
            print(name, flush=True)


if __name__ == "__main__":
    main()
