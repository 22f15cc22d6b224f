"""The temporary disk: looked at, given a file system where there is nothing on it, mounted, and read back.

    inspect(options, here)   what is there and what follows from it; raises where the disk is to be left alone
    converge(options, here)  do it; safe to run twice, and after a run that was killed

Before the first byte is written a journal names the disk and the node. A run that is killed leaves it, and with it the
next one may go on, if nothing has been put on the disk since. It is removed as soon as the file system is whole, so
that what is mounted once is never formatted again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.duties.resource_disk.contents import Signature, look, probe, unusable
from minprov.duties.resource_disk.decision import LABEL, LINUX_TYPE, WARNING_FILE, Leave, Make, Mount, decide
from minprov.duties.resource_disk.discovery import Disk, Node, find_resource_disk
from minprov.duties.resource_disk.mount_point import check_mount_point, mount
from minprov.duties.resource_disk.settings import FileSystem, Options
from minprov.duties.resource_disk.usage import check_unused, in_use, mounted_node, read_usage
from minprov.errors import ProvisioningError, Reason
from minprov.limits import DISK_LOCK_POLL, MKFS_LIMIT, UDEV_LIMIT
from minprov.machine.files import read_file, sync
from minprov.machine.system import System
from minprov.machine.tools import find_tool, run_tool
from minprov.properties.inspection import Inspection

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

JOURNAL = "resource-disk.journal"
MARKER = ".minprov"
WARNING = b"""WARNING: THIS IS A TEMPORARY DISK.

Any data stored on this drive is SUBJECT TO LOSS, and there is no way to recover it: when the VM is stopped and
deallocated, resized, redeployed or moved to another host, it gets another disk, and this one is gone.

Please do not use this disk for anything that you are not prepared to lose.
"""
MKFS = {
    # No discard: of a whole local SSD that takes minutes, and the disk is new. No reserve: root keeps nothing here.
    FileSystem.EXT4: ("-q", "-m", "0", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"),
    FileSystem.XFS: ("-q", "-K"),
    FileSystem.BTRFS: ("-q", "-K"),
}
MBR_TYPE, MBR_ENTRY = 446 + 4, 16
"""Where the first partition's type is, and the size of an entry: UEFI 2.10, 5.2.3."""
ERASED = 4096
"""Bytes at the start of a node: the boot sector of NTFS is there, and the superblock of a half made xfs."""
MARGIN = 128 << 20
"""What a file system may take for itself, log and inodes, where a tenth of the disk is less."""


class Here(NamedTuple):
    """The machine: which VM it is, where its state is kept, and where the kernel shows things."""

    state_dir: str
    vm_id: str | None
    on_azure: bool
    sysfs: str = "/sys"
    proc: str = "/proc"


async def inspect(options: Options, here: Here) -> Inspection:
    """Say what is there and what would be done with it.

    Raises:
        ProvisioningError: RESOURCE_DISK_*, TOOL_NOT_FOUND.

    """
    disk = find(options, here)
    if disk is None:
        return Inspection(True, "no resource disk")
    node = mounted_node(disk, read_usage(here.proc), options.mount_point)
    if node:
        whole = is_marked(options) or await probe(node) != _our_signature(options)
        return Inspection(whole, f"{node.name} is mounted" + ("" if whole else ", not yet marked"))
    decision = await _decide(disk, options, here)
    size = f"{decision.node.size / (1 << 30):.1f} GiB"
    if isinstance(decision, Make):
        return Inspection(False, f"{decision.node.name}, {decision.present}: to be {options.file_system.value}, {size}")
    return Inspection(False, f'{decision.node.name}, {options.file_system.value} "{LABEL}", {size}: to be mounted')


async def converge(options: Options, here: Here) -> None:
    """Make a file system where there is nothing, and mount it."""
    disk = find(options, here)
    if disk is None:
        return
    node = mounted_node(disk, read_usage(here.proc), options.mount_point)
    if node is None:
        with _claimed(disk):
            decision = await _decide(disk, options, here)
            node = decision.node
            if isinstance(decision, Make):
                await _write_journal(disk, node, here)
                _prepare(disk, decision)
        if isinstance(decision, Make):
            await _make_file_system(disk, node, options)
            await _remove_journal(here)
        await mount(node, options)
    try:
        await _mark(disk, options, here)
        _read_back(node, options, here)
    except OSError as error:
        raise unusable(error, options.mount_point) from error
    await _remove_journal(here)


def find(options: Options, here: Here) -> Disk | None:
    """Return the disk, as `find_resource_disk` does."""
    try:
        return find_resource_disk(options, here.sysfs)
    except FileNotFoundError:  # a named one, or one that has just gone
        return None
    except (OSError, ValueError) as error:
        raise ProvisioningError(Reason.RESOURCE_DISK_NOT_USABLE, detail=error) from error


def is_marked(options: Options) -> bool:
    """Tell whether what is mounted is the file system that minprov has made."""
    return os.path.isfile(f"{options.mount_point}/{MARKER}")


async def _decide(disk: Disk, options: Options, here: Here) -> Mount | Make:
    """Return what to do with a disk that nobody uses, by what is on it now."""
    usage = read_usage(here.proc)
    check_unused(disk, usage)
    check_mount_point(options.mount_point, usage)
    contents = await look(disk)
    decision = decide(disk, contents, options, on_azure=here.on_azure, interrupted=_read_journal(disk, here))
    if isinstance(decision, Leave):
        raise decision.why
    if isinstance(decision, Make) and find_tool(f"mkfs.{options.file_system.value}") is None:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool=f"mkfs.{options.file_system.value}")
    return decision


def _our_signature(options: Options) -> Signature:
    return Signature(options.file_system.value, LABEL)


# -- make --------------------------------------------------------------------------------------------------------------


@contextmanager
def _claimed(disk: Disk) -> Iterator[None]:
    """Keep everybody from mounting the disk or a partition, open(2): O_EXCL; fails where somebody does already."""
    try:
        descriptor = os.open(disk.whole.path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise in_use(disk, "the kernel says that it is busy") from error
        raise unusable(error, disk.whole.path) from error
    try:
        yield
    finally:
        os.close(descriptor)


def _identify(disk: Disk, node: Node) -> dict[str, object]:
    return {
        "serial": disk.serial,
        "size": disk.whole.size,
        "node": node.number,
        "start": node.start,
        "bytes": node.size,
    }


async def _write_journal(disk: Disk, node: Node, here: Here) -> None:
    contents = json.dumps(_identify(disk, node)).encode() + b"\n"
    await System().replace(f"{here.state_dir}/{JOURNAL}", contents, mode=0o600)


def _read_journal(disk: Disk, here: Here) -> int | None:
    """Return the number of the node on which a run that was killed had begun, if it was on this disk."""
    try:
        written = json.loads(read_file(None, f"{here.state_dir}/{JOURNAL}") or b"null")
    except (OSError, ValueError):
        return None
    last = disk.nodes[-1]
    return last.number if written == _identify(disk, last) else None


async def _remove_journal(here: Here) -> None:
    await System().remove(f"{here.state_dir}/{JOURNAL}")


def _prepare(disk: Disk, decision: Make) -> None:
    """Take away the volume's signature, so that no mkfs need be forced, and with it the partition's type.

    waagent formats what has the type of NTFS and is something else, unseen: its daemon/resourcedisk/default.py. The
    type in a GPT is common to Windows and Linux, and stays.
    """
    node = decision.node
    _write(node, 0, bytes(ERASED))
    if decision.in_mbr:
        _write(disk.whole, MBR_TYPE + MBR_ENTRY * (node.number - 1), bytes.fromhex(LINUX_TYPE))


def _write(node: Node, offset: int, data: bytes) -> None:
    try:
        descriptor = os.open(node.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, data, offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unusable(error, node.path) from error


async def _make_file_system(disk: Disk, node: Node, options: Options) -> None:
    kind = options.file_system
    logger.info("mkfs.%s on %s", kind.value, node.path)
    with _locked_for_udev(disk):
        try:
            await run_tool([f"mkfs.{kind.value}", *MKFS[kind], "-L", LABEL, node.path], limit=MKFS_LIMIT)
        except ProvisioningError as error:
            raise ProvisioningError(Reason.RESOURCE_DISK_NOT_USABLE, disk=node.name, **error.data) from error
        try:
            sync(node.path)
        except OSError as error:
            raise unusable(error, node.path) from error
    if udevadm := find_tool("udevadm"):
        # It may read the table again, and then the partition is away for a moment.
        with suppress(ProvisioningError):
            await run_tool([udevadm, "settle", f"--timeout={UDEV_LIMIT:g}"], limit=2 * UDEV_LIMIT)


@contextmanager
def _locked_for_udev(disk: Disk) -> Iterator[None]:
    """Have udev look at the disk when it is done, and not before: systemd's docs/BLOCK_DEVICE_LOCKING.md."""
    try:
        descriptor = os.open(disk.whole.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unusable(error, disk.whole.path) from error
    try:
        deadline = time.monotonic() + UDEV_LIMIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise in_use(disk, "another program holds its lock") from error
                time.sleep(DISK_LOCK_POLL)
        yield
    finally:
        os.close(descriptor)


# -- what is mounted ---------------------------------------------------------------------------------------------------


async def _mark(disk: Disk, options: Options, here: Here) -> None:
    """Warn people of what the disk is, and note that minprov has made what is on it."""
    system = System()
    warning, marker = f"{options.mount_point}/{WARNING_FILE}", f"{options.mount_point}/{MARKER}"
    if system.read(warning) is None:
        await system.replace(warning, WARNING, mode=0o644)
    if system.read(marker) is None:
        boot = system.read_text(f"{here.proc}/sys/kernel/random/boot_id").strip()
        known = {"vm_id": here.vm_id, "boot_id": boot, "serial": disk.serial}
        await system.replace(marker, json.dumps(known).encode() + b"\n", mode=0o600)


def _read_back(node: Node, options: Options, here: Here) -> None:
    """Raise RESOURCE_DISK_NOT_USABLE unless the file system is there, as large as the disk, and can be written."""
    found = read_usage(here.proc).at(options.mount_point)
    if found is None or found.type != options.file_system.value:
        raise _wrong(options, found.type if found else "not mounted")
    # The kernel adds options of its own, and shows some by another name.
    wanted = set(options.mount_options.split(",")) & {"nodev", "nosuid", "noexec", "noatime", "ro"}
    if not wanted <= found.options:
        raise _wrong(options, f"without {', '.join(sorted(wanted - found.options))}")
    room = os.statvfs(options.mount_point)
    total = room.f_blocks * room.f_frsize
    if not node.size - max(node.size // 10, MARGIN) <= total <= node.size:
        raise _wrong(options, f"{total} bytes of {node.size}")
    if read_file(None, f"{options.mount_point}/{MARKER}") is None:
        raise _wrong(options, "the marker does not read back")
    probe_file = f"{options.mount_point}/{MARKER}.probe"
    with suppress(FileNotFoundError):
        os.unlink(probe_file)
    descriptor = os.open(probe_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b"minprov\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        os.unlink(probe_file)


def _wrong(options: Options, detail: str) -> ProvisioningError:
    return ProvisioningError(Reason.RESOURCE_DISK_NOT_USABLE, path=options.mount_point, detail=detail)
