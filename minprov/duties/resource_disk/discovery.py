"""Which disk is the temporary disk, by sysfs alone: names such as sdb are in no fixed order, links need udev rules.

- Generation 1: an IDE disk of Hyper-V; the instance id of its vmbus device begins with 00000000-0001.
- Generation 2: LUN 1 of the vmbus SCSI controller f8b3781a-…; LUN 0 is the system's disk, data disks have controllers
  of their own. Both: WALinuxAgent's osutil/default.py and config/66-azure-storage.rules.
- Local NVMe: the controller's model begins with "Microsoft NVMe Direct Disk"; a remote disk has another model.
  azure-vm-utils' doc/disk-identification.md.

Nothing else is ever taken for one. A disk that the configuration names is marked as such, and judged more strictly.
"""

from __future__ import annotations

import os
import re

from minprov.definitions import NamedTuple
from minprov.duties.resource_disk.settings import Disks, Options

GENERATION_1 = "00000000-0001-"
GENERATION_2 = "f8b3781a-1e82-4818-a1c3-63d806ec15bb"
RESOURCE_LUN = 1
LOCAL_NVME = "Microsoft NVMe Direct Disk"
REMOTE_NVME = "MSFT NVMe Accelerator"
SECTOR = 512  # what sysfs counts in, whatever the disk's sectors are


class Node(NamedTuple):
    """A block device that the kernel shows: a disk, or a partition with its number and its place on the disk."""

    name: str
    device: int
    number: int
    start: int
    size: int
    has_holders: bool

    @property
    def path(self) -> str:
        """The device file."""
        return f"/dev/{self.name}"


class Disk(NamedTuple):
    """A disk that may be meant; `proven` is false for one that only the configuration calls a temporary disk."""

    whole: Node
    partitions: tuple[Node, ...]
    serial: str
    proven: bool

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The disk and its partitions."""
        return (self.whole, *self.partitions)


def find_resource_disk(options: Options, sysfs: str = "/sys") -> Disk | None:
    """Return the disk that the configuration names, or the one that the platform made; None where there is none.

    Raises OSError where sysfs cannot be read, FileNotFoundError for a named device that is not there.
    """
    if options.device:
        name = os.path.basename(os.path.realpath(options.device))
        return _read_disk(sysfs, name, proven=False)
    names = os.listdir(f"{sysfs}/block") if os.path.isdir(f"{sysfs}/block") else []
    scsi = sorted(name for name in names if is_resource_scsi(sysfs, name))
    nvme = [_read_disk(sysfs, name, proven=True) for name in names if nvme_model(sysfs, name).startswith(LOCAL_NVME)]
    # Controllers are numbered as they answer; serial numbers stay.
    nvme.sort(key=lambda disk: (disk.serial, disk.whole.name))
    if scsi and options.disks is not Disks.NVME:
        return _read_disk(sysfs, scsi[0], proven=True)
    return nvme[0] if nvme and options.disks is not Disks.SCSI else None


def is_resource_scsi(sysfs: str, name: str) -> bool:
    """Tell whether a block device is the temporary disk on Hyper-V's IDE or SCSI controller."""
    path = os.path.realpath(f"{sysfs}/block/{name}/device")
    address = re.fullmatch(r"\d+:\d+:\d+:(\d+)", os.path.basename(path))
    if not name.startswith("sd") or not address:
        return False
    while len(path) > len(os.path.realpath(sysfs)):
        instance = read_attribute(f"{path}/device_id").strip("{}").lower()
        if instance:
            return instance.startswith(GENERATION_1) or (instance == GENERATION_2 and int(address[1]) == RESOURCE_LUN)
        path = os.path.dirname(path)
    return False


def nvme_model(sysfs: str, name: str) -> str:
    """Return the model of an NVMe namespace's controller, empty for another device."""
    return read_attribute(f"{sysfs}/block/{name}/device/model") if re.fullmatch(r"nvme\d+n\d+", name) else ""


def _read_disk(sysfs: str, name: str, *, proven: bool) -> Disk:
    place = os.path.realpath(f"{sysfs}/class/block/{name}")
    below = [entry for entry in sorted(os.listdir(place)) if os.path.exists(f"{place}/{entry}/partition")]
    partitions = [_read_node(f"{place}/{entry}") for entry in below]
    return Disk(
        whole=_read_node(place),
        partitions=tuple(sorted(partitions, key=lambda node: node.number)),
        serial=read_attribute(f"{place}/device/serial") or read_attribute(f"{place}/device/wwid"),
        proven=proven,
    )


def _read_node(place: str) -> Node:
    major, _, minor = _required(f"{place}/dev").partition(":")
    holders = f"{place}/holders"
    return Node(
        name=os.path.basename(place),
        device=os.makedev(int(major), int(minor)),
        number=int(read_attribute(f"{place}/partition") or 0),
        start=int(read_attribute(f"{place}/start") or 0) * SECTOR,
        size=int(_required(f"{place}/size")) * SECTOR,
        has_holders=os.path.isdir(holders) and bool(os.listdir(holders)),
    )


def _required(path: str) -> str:
    with open(path, encoding="ascii") as stream:
        return stream.read(256).strip()


def read_attribute(path: str) -> str:
    """Return what a file of sysfs says, without the padding; empty where it is not there."""
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.read(256).strip()
    except OSError:
        return ""
