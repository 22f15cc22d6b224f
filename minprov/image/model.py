"""What a disk image tells beside the files on it: the words that reading a disk and checking it have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple

if TYPE_CHECKING:
    from minprov.formats.disk_image import ImageFormat
    from minprov.formats.partitions import Partition, PartitionTable
    from minprov.formats.superblocks import Superblock
    from minprov.formats.vhd_footer import Violation
    from minprov.image.layout import Layout


class Volume(NamedTuple):
    """A partition, or the whole disk where it has no table, and what it holds."""

    partition: Partition
    contents: Superblock | None
    target: str | None = None
    """Where in the tree it is mounted."""
    unread: str | None = None
    """Why it is not."""

    def answers_to(self, spec: str) -> bool:
        """Tell whether it is what the first field of an fstab names by a tag."""
        key, _, value = spec.partition("=")
        names = {
            "UUID": self.contents and self.contents.uuid,
            "LABEL": self.contents and self.contents.label,
            "PARTUUID": self.partition.uuid,
            "PARTLABEL": self.partition.name,
        }
        return (names.get(key) or "").lower() == value.strip('"').lower() != ""


class Disk(NamedTuple):
    """A disk image, as far as it is no file of the system on it."""

    path: str
    format: ImageFormat
    size: int
    file_size: int
    vhd_violations: tuple[Violation, ...] | None
    """What Azure refuses of a VHD; None for other formats."""
    table: PartitionTable | None
    layout: Layout
    volumes: tuple[Volume, ...]
    reader: str
    """``kernel`` or ``libguestfs``."""
