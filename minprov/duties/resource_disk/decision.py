"""What to do with a disk, from what is on it: mount, make a file system, or leave it alone. Pure; never a guess.

Only three things are ever overwritten: the NTFS volume that the platform makes, with nothing in it; a blank disk; and
what an earlier run of minprov left half made. Everything else is left, and named.

- The platform's volume: one partition, or on GPT a Microsoft reserved one first; NTFS labelled "Temporary Storage";
  in its root directory the warning and what Windows makes by itself. cloud-init's sources/DataSourceAzure.py,
  can_dev_be_reformatted, has the same rule, but takes a volume that it cannot mount for an empty one.
- A local NVMe disk is raw after each deallocation: learn.microsoft.com, enable-nvme-temp-faqs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from minprov.definitions import NamedTuple
from minprov.duties.resource_disk.contents import Blank
from minprov.duties.resource_disk.settings import Format, Options
from minprov.errors import ProvisioningError, Reason, excerpt
from minprov.formats.ntfs import Directory

if TYPE_CHECKING:
    from minprov.duties.resource_disk.contents import Contents
    from minprov.duties.resource_disk.discovery import Disk, Node

LABEL = "minprov-temp"
PLATFORM_LABEL = "Temporary Storage"
WARNING_FILE = "DATALOSS_WARNING_README.txt"
MAX_WARNING = 64 << 10
NAMES_SHOWN = 5
BLKID_NAMES = {"mbr": "[dos]", "gpt": "[gpt]"}
NTFS_TYPE, LINUX_TYPE = "07", "83"
MICROSOFT_RESERVED, MICROSOFT_BASIC_DATA = (
    "e3c9e316-0b5c-4db8-817d-f92df00215ae",
    "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
)
PLATFORM_TABLES = (
    ("mbr", [NTFS_TYPE]),
    ("gpt", [MICROSOFT_BASIC_DATA]),
    ("gpt", [MICROSOFT_RESERVED, MICROSOFT_BASIC_DATA]),
)
"""The kinds of table, and the types of the partitions in their order."""


class Mount(NamedTuple):
    """Mount the file system that minprov made on a node at an earlier boot."""

    node: Node


class Make(NamedTuple):
    """Make a file system on a node, since `present` is all that is there; `in_mbr` is what has the partition's type."""

    node: Node
    present: str
    in_mbr: bool = False


class Leave(NamedTuple):
    """Leave the disk as it is, for a reason."""

    why: ProvisioningError


Decision: TypeAlias = Mount | Make | Leave


def decide(disk: Disk, contents: Contents, options: Options, *, on_azure: bool, interrupted: int | None) -> Decision:
    """Decide on a disk that nobody uses.

    `interrupted` is the number of the node on which an earlier run of minprov began to make a file system and did not
    come to the end, 0 for the whole disk.
    """
    last = disk.nodes[-1]
    in_mbr = bool(last.number and contents.table and contents.table.kind == "mbr")
    if interrupted == last.number and _is_half_made(disk, contents):
        decision = Make(last, "half made", in_mbr)
    elif contents.signatures[-1] == (options.file_system.value, LABEL):
        return Mount(last)
    elif _is_fresh(disk, contents):
        decision = Make(last, f'ntfs "{PLATFORM_LABEL}", empty', in_mbr)
    elif contents.blank is Blank.YES or (contents.blank is Blank.SAMPLED and disk.proven and on_azure):
        decision = Make(disk.whole, "blank")
    else:
        return _holds_data(disk, contents)
    if options.format is Format.NEVER:
        return Leave(
            ProvisioningError(
                Reason.RESOURCE_DISK_HOLDS_DATA,
                disk=disk.whole.name,
                content=decision.present,
                detail='`format` is "never"',
            )
        )
    return decision


def _is_half_made(disk: Disk, contents: Contents) -> bool:
    """Tell whether nothing has been put on the disk since: no signature but that of the table as it was."""
    parted = _is_platform_table(disk, contents, ("mbr", [LINUX_TYPE]), *PLATFORM_TABLES)
    return (parted or not disk.partitions) and (contents.signatures[-1] is None or contents.unfinished)


def _is_fresh(disk: Disk, contents: Contents) -> bool:
    directory = contents.directory
    return (
        _is_platform_table(disk, contents, *PLATFORM_TABLES)
        and contents.signatures[-1] == ("ntfs", PLATFORM_LABEL)
        and isinstance(directory, Directory)
        and directory.label == PLATFORM_LABEL
        and directory.complete
        and all(_is_ignorable(name.lower(), is_directory, size) for name, is_directory, size in directory.entries)
    )


def _is_ignorable(name: str, is_directory: bool, size: int) -> bool:
    if name == "system volume information":
        return is_directory
    return name == WARNING_FILE.lower() and not is_directory and size <= MAX_WARNING


def _is_platform_table(disk: Disk, contents: Contents, *tables: tuple[str, list[str]]) -> bool:
    """Tell whether the disk is parted in one of these ways, and the kernel sees the same partitions as we do."""
    table, [whole, *others] = contents.table, contents.signatures
    if table is None or table.faults or whole != (BLKID_NAMES.get(table.kind), "") or any(others[:-1]):
        return False
    parts = sorted(table.partitions)
    shown = [(node.number, node.start, node.size) for node in disk.partitions]
    return [part[:3] for part in parts] == shown and (table.kind, [part.type for part in parts]) in tables


def _holds_data(disk: Disk, contents: Contents) -> Leave:
    """Say what is there, as well as it is known."""
    directory = contents.directory
    found = [
        f"{node.name} {excerpt(str(signature))}"
        for node, signature in zip(disk.nodes, contents.signatures, strict=True)
        if signature
    ]
    names = doubt = None
    if isinstance(directory, Directory):
        entries = directory.entries
        names = ", ".join(excerpt(entry.name, 32) for entry in entries[:NAMES_SHOWN])
        names += ", ..." if len(entries) > NAMES_SHOWN else ""
    elif directory is not None:
        doubt = directory.data["fault"]
    if not found:
        found = [
            contents.blank.value if contents.blank is Blank.SAMPLED else "no signature, but bytes that are not zero"
        ]
    return Leave(
        ProvisioningError(
            Reason.RESOURCE_DISK_HOLDS_DATA,
            disk=disk.whole.name,
            content="; ".join(found),
            files=names or None,
            detail=doubt and f"cannot be read: {doubt}",
        )
    )
