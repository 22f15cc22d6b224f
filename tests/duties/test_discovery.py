"""Which disk is found on each kind of VM, and which never is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from minprov.duties.resource_disk.discovery import find_resource_disk
from minprov.duties.resource_disk.settings import Disks, Options
from tests.duties.sysfs import (
    DATA,
    GENERATION_1_RESOURCE,
    GENERATION_1_SYSTEM,
    GENERATION_2,
    LOCAL_1,
    LOCAL_2,
    REMOTE,
    Tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def generation_1(tree: Tree) -> None:
    # The names are in no fixed order.
    tree.scsi("sdb", GENERATION_1_SYSTEM, 0, 0)
    tree.scsi("sda", GENERATION_1_RESOURCE, 1, 0)
    tree.scsi("sdc", DATA, 3, 0)
    tree.scsi("sdd", DATA, 3, 1)


def generation_2(tree: Tree) -> None:
    tree.scsi("sda", GENERATION_2, 0, 0)
    tree.scsi("sdc", GENERATION_2, 0, 1)
    tree.scsi("sdb", DATA, 1, 1)


def generation_2_without(tree: Tree) -> None:
    tree.scsi("sda", GENERATION_2, 0, 0)
    tree.scsi("sdb", DATA, 1, 0)
    tree.scsi("sdc", DATA, 1, 1)


def storage_optimised(tree: Tree) -> None:
    """Lsv3 has a SCSI disk and local NVMe disks."""
    generation_2(tree)
    tree.nvme(0, LOCAL_1, serial="b")
    tree.nvme(1, LOCAL_1, serial="a")


def version_6(tree: Tree) -> None:
    tree.nvme(0, REMOTE, serial="SN: 000001", partitions=2)
    tree.nvme(2, LOCAL_2, serial="c9a0")
    tree.nvme(1, LOCAL_2, serial="c9a1")


def version_6_without(tree: Tree) -> None:
    tree.nvme(0, REMOTE, serial="SN: 000001", partitions=2)
    tree.nvme(0, REMOTE, serial="SN: 000001", namespace=2)


def version_7(tree: Tree) -> None:
    tree.nvme(0, "Microsoft NVMe Direct Disk v3", serial="1")


def elsewhere(tree: Tree) -> None:
    tree.nvme(0, "QEMU NVMe Ctrl", serial="1")


@pytest.mark.parametrize(
    ("vm", "disks", "found"),
    [
        (generation_1, Disks.SCSI_OR_NVME, "sda"),
        (generation_2, Disks.SCSI_OR_NVME, "sdc"),
        (generation_2, Disks.NVME, None),
        (generation_2_without, Disks.SCSI_OR_NVME, None),
        (storage_optimised, Disks.SCSI_OR_NVME, "sdc"),
        (storage_optimised, Disks.SCSI, "sdc"),
        (storage_optimised, Disks.NVME, "nvme1n1"),
        (version_6, Disks.SCSI_OR_NVME, "nvme2n1"),
        (version_6, Disks.SCSI, None),
        (version_6_without, Disks.SCSI_OR_NVME, None),
        (version_7, Disks.SCSI_OR_NVME, "nvme0n1"),
        (elsewhere, Disks.SCSI_OR_NVME, None),
        (lambda _: None, Disks.SCSI_OR_NVME, None),
    ],
)
def test_the_temporary_disk_of(vm: Callable[[Tree], None], disks: Disks, found: str | None, tmp_path: Path) -> None:
    vm(Tree(tmp_path))
    disk = find_resource_disk(Options(disks=disks), str(tmp_path))
    assert (disk and disk.whole.name) == found
    if disk:
        assert disk.proven
        assert [node.number for node in disk.nodes] == ([0, 1] if disk.whole.name.startswith("sd") else [0])


def test_a_disk_that_is_named_is_not_proven(tmp_path: Path) -> None:
    generation_2(Tree(tmp_path))
    disk = find_resource_disk(Options(device="/dev/sdb"), str(tmp_path))
    assert disk is not None
    assert (disk.whole.name, disk.proven) == ("sdb", False)
