"""Images that a mistake keeps from coming up: `minprov check` names it, and a VM of the image fails indeed.

QEMU has no vmbus: what is wrong with Hyper-V's drivers no boot here can show.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.vm import recipes
from tests.vm.bootable import ESP_START, ROOT_START, SECTOR
from tests.vm.image import ensure_image

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(3600)]

LIMIT = "300"
NOT_READY = "Not provisioned: "  # what else these show was not recorded yet
NO_LEASE = "DHCP lease: never asked for"
WANTS = "/etc/systemd/system/multi-user.target.wants"
NETWORK = "/etc/systemd/network/50-dhcp.network"


class Defect(NamedTuple):
    """A mistake: what a shell does to the root file system, the check that finds it, and what a boot shows."""

    finds: str
    shows: str
    """A pattern: that the VM did not come up is not enough, for a slow one does not either."""
    command: str
    login: str = "key"
    firmware: str = "bios"


DEFECTS = {
    "no-dhcp-client": Defect("dhcp", NO_LEASE, "systemctl disable systemd-networkd"),
    "nic-of-the-builder": Defect(
        "nic-names", NO_LEASE, f"sed -i 's/^Type=.*/Name=enp1s0/; s/^Name=.*/Name=enp1s0/' {NETWORK}"
    ),
    "no-optical-drive": Defect(
        "kernel-optical",
        NOT_READY,
        "kernel=$(ls /usr/lib/modules); rm /usr/lib/modules/*/kernel/drivers/scsi/sr_mod.ko*; depmod $kernel;"
        "update-initramfs -u -k $kernel",
        "password",
    ),
    "device-of-another-hypervisor": Defect(
        "fstab", "NotReady.*emergency mode", "echo '/dev/vdz1 /srv ext4 defaults 0 2' >>/etc/fstab"
    ),
    "sshd-not-enabled": Defect("sshd", "cannot log in by key", "systemctl mask ssh.service ssh.socket"),
    "group-that-nobody-is-in": Defect(
        "sshd-login", "NotReady.*AllowGroups", "echo 'AllowGroups sshusers' >/etc/ssh/sshd_config.d/10-hardened.conf"
    ),
    "provisioner-forgotten": Defect("agents", NOT_READY, f"rm {WANTS}/minprov.service {WANTS}/minprov-ready.target"),
    "second-provisioner": Defect(
        "agents",
        "reason=another provisioning agent is enabled",
        "printf '[Service]\\nExecStart=/bin/true\\n' >/etc/systemd/system/cloud-init.service;"
        f"ln -s ../cloud-init.service {WANTS}/cloud-init.service",
    ),
    "configuration-with-a-slip": Defect(
        "minprov-toml", "NotReady.*time-out", "mkdir -p /etc/minprov; echo 'time-out = 9' >/etc/minprov/minprov.toml"
    ),
    "module-of-python-missing": Defect(
        "minprov", "program cannot be loaded.*aiohttp", "rm -r /usr/lib/python3/dist-packages/aiohttp"
    ),
    "no-loader-for-uefi": Defect("generations", "failed to load Boot", "", firmware="uefi"),
}


@pytest.fixture(params=DEFECTS.items(), ids=lambda item: item[0])
def defect(request: pytest.FixtureRequest) -> Defect:
    found: Defect = request.param[1]
    return found


def test_a_defect_that_is_found_keeps_a_vm_from_coming_up(defect: Defect, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    shutil.copy(ensure_image(recipes.APPLIANCE).disk, disk)
    if defect.command:
        with _root_of(disk, tmp_path) as root:
            subprocess.run(["chroot", root, "sh", "-ec", defect.command], check=True, capture_output=True)
    else:
        loader = f"{disk}@@{ESP_START * SECTOR}"
        subprocess.run(["mdel", "-i", loader, "::EFI/BOOT/BOOTX64.EFI"], check=True)
    generation = "2" if defect.firmware == "uefi" else "1"
    argv = [sys.executable, "-m", "minprov", "check", "--json", "--generation", generation, str(disk)]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    failed = {finding["id"] for finding in json.loads(checked.stdout)["findings"] if finding["severity"] == "fails"}
    assert defect.finds in failed
    boot = [sys.executable, "-m", "minprov.emulator", "boot", str(disk), "--limit", LIMIT]
    boot += ["--login", defect.login, "--firmware", defect.firmware]
    booted = subprocess.run(boot, capture_output=True, text=True, check=False)
    print(booted.stdout + booted.stderr)
    assert booted.returncode == 1
    assert re.search(defect.shows, booted.stdout)


@contextmanager
def _root_of(disk: Path, directory: Path) -> Iterator[Path]:
    mount = directory / "root"
    mount.mkdir()
    subprocess.run(["mount", "-o", f"loop,offset={ROOT_START * SECTOR}", disk, mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)
