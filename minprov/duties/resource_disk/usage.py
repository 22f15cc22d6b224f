"""Who uses a disk: mounts, swap, and devices built on it. What somebody uses is left to him."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.mounts import Mounted, Swap, parse_mountinfo, parse_swaps

if TYPE_CHECKING:
    from minprov.duties.resource_disk.discovery import Disk, Node


class Usage(NamedTuple):
    """What is mounted and swapped on."""

    mounts: tuple[Mounted, ...]
    swaps: tuple[Swap, ...]

    def at(self, mount_point: str) -> Mounted | None:
        """Return what is mounted at a place, the uppermost."""
        return next((mount for mount in reversed(self.mounts) if mount.path == mount_point), None)


def read_usage(proc: str = "/proc") -> Usage:
    """Return what is mounted and swapped on now."""
    return Usage(
        mounts=tuple(parse_mountinfo(_read(f"{proc}/self/mountinfo"))),
        swaps=tuple(parse_swaps(_read(f"{proc}/swaps"))),
    )


def mounted_node(disk: Disk, usage: Usage, mount_point: str) -> Node | None:
    """Return which node of the disk is mounted at the mount point."""
    mount = usage.at(mount_point)
    return next((node for node in disk.nodes if mount and _device_of(mount) == node.device), None)


def check_unused(disk: Disk, usage: Usage) -> None:
    """Raise RESOURCE_DISK_IN_USE where the disk or a partition of it is in use in any way."""
    for node in disk.nodes:
        user = _user_of(node, usage)
        if user:
            raise in_use(disk, f"{node.name} {user}")


def in_use(disk: Disk, detail: str) -> ProvisioningError:
    """Build the error for a disk that belongs to somebody else."""
    return ProvisioningError(Reason.RESOURCE_DISK_IN_USE, disk=disk.whole.name, detail=detail)


def _user_of(node: Node, usage: Usage) -> str | None:
    if node.has_holders:
        return "is part of another device"
    for mount in usage.mounts:
        if _device_of(mount) == node.device:
            return f"is mounted at {mount.path}"
    return next(("is swapped on" for swap in usage.swaps if _number(swap.path) == node.device), None)


def _device_of(mount: Mounted) -> int | None:
    """Return the block device of a mount: btrfs shows a device number that no block device has."""
    return _number(mount.source) or os.makedev(*map(int, mount.device.split(":")))


def _number(path: str) -> int | None:
    try:
        return os.stat(path).st_rdev if path.startswith("/dev/") else None
    except OSError:
        return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:  # /proc/swaps, where the kernel has no swap
        return ""
