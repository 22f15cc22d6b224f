"""Trees of sysfs as the sizes of VMs have them, for tests of what is found in them.

The paths, ids and models are those in azure-vm-utils' doc/disk-identification.md and selftest/selftest.py, and in the
rules of WALinuxAgent's config/66-azure-storage.rules.
"""

from __future__ import annotations

import os
from pathlib import Path

VMBUS = "devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00"
GENERATION_1_SYSTEM = "00000000-0000-8899-0000-000000000000"
GENERATION_1_RESOURCE = "00000000-0001-8899-0000-000000000000"
GENERATION_2 = "f8b3781a-1e82-4818-a1c3-63d806ec15bb"
DATA = "f8b3781b-1e82-4818-a1c3-63d806ec15bb"
REMOTE, LOCAL_1, LOCAL_2 = "MSFT NVMe Accelerator v1.0", "Microsoft NVMe Direct Disk", "Microsoft NVMe Direct Disk v2"


class Tree:
    """A sysfs, to which disks are added."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._minor = 0
        for directory in ("block", "class/block", "bus/vmbus"):
            (root / directory).mkdir(parents=True)

    def scsi(self, name: str, controller: str, host: int, lun: int, *, timeout: int = 180, kind: str = "0") -> None:
        """Add a disk on a controller of Hyper-V."""
        bus = f"{VMBUS}/{controller}"
        self._write(f"{bus}/device_id", f"{{{controller}}}\n")
        device = f"{bus}/host{host}/target{host}:0:0/{host}:0:0:{lun}"
        attributes = {"vendor": "Msft    ", "model": "Virtual Disk    ", "type": kind, "timeout": f"{timeout}"}
        for attribute, value in attributes.items():
            self._write(f"{device}/{attribute}", f"{value}\n")
        self._block(name, device, partitions=1)

    def nvme(self, number: int, model: str, *, serial: str, namespace: int = 1, partitions: int = 0) -> None:
        """Add a namespace of an NVMe controller."""
        device = f"devices/pci0001:00/0001:00:00.{number}/nvme/nvme{number}"
        self._write(f"{device}/model", f"{model:<40}\n")
        self._write(f"{device}/serial", f"{serial:<20}\n")
        self._block(f"nvme{number}n{namespace}", device, partitions=partitions, directory=device)
        self._write(f"block/nvme{number}n{namespace}/queue/io_timeout", "30000\n")

    def _block(self, name: str, device: str, *, partitions: int, directory: str | None = None) -> None:
        place = f"{directory or device + '/block'}/{name}"
        self._node(place, 20 << 20)
        (self.root / place / "holders").mkdir()
        (self.root / place / "device").symlink_to(os.path.relpath(self.root / device, self.root / place))
        for folder in ("block", "class/block"):
            (self.root / folder / name).symlink_to(os.path.relpath(self.root / place, self.root / folder))
        for number in range(1, partitions + 1):
            part = f"{place}/{name}{'p' if name[-1].isdigit() else ''}{number}"
            self._node(part, 10 << 20)
            self._write(f"{part}/partition", f"{number}\n")
            self._write(f"{part}/start", "2048\n")

    def _node(self, place: str, sectors: int) -> None:
        self._write(f"{place}/dev", f"8:{self._minor}\n")
        self._write(f"{place}/size", f"{sectors}\n")
        self._minor += 1

    def _write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)
