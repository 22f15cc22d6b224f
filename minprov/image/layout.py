"""Which of Azure's generations of virtual machines can start a disk, told by its layout.

Generation 1 has a BIOS, which starts the program in the first sector; generation 2 has UEFI, which looks for a loader
on the EFI system partition. A new VM's firmware knows no boot entries, so that only the fallback path counts (UEFI 2.10
§3.5.1.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.formats.partitions import BIOS_BOOT, SECTOR
from minprov.image.esp import FALLBACK_LOADERS, fallback_loaders

if TYPE_CHECKING:
    from minprov.formats.partitions import PartitionTable


class Layout(NamedTuple):
    """What starts a disk."""

    generations: tuple[str, ...]
    """``V2`` and ``V1``, in the order of what is to be preferred; empty if nothing starts it."""
    architecture: str | None
    notes: tuple[str, ...]


def judge_layout(image: str, table: PartitionTable | None) -> Layout:
    """Return what can start the plain disk at `image`, which has this partition table."""
    if table is None:
        return Layout((), None, ("the disk has no partition table: neither generation starts it",))
    generations, notes, architecture = [], [], None
    esps = [part for part in table.partitions if part.is_esp]
    if table.sector_size != SECTOR:
        notes.append(
            f"the GPT is for sectors of {table.sector_size} bytes; an OS disk on Azure has sectors of {SECTOR}"
        )
    elif esps:
        loaders = fallback_loaders(image, esps[0].start)
        if loaders is None:
            notes.append("whether the EFI system partition has a loader is not known: mtools cannot read it here")
        elif not loaders:
            notes.append(
                "the EFI system partition has no EFI/BOOT/BOOTX64.EFI or BOOTAA64.EFI: generation 2 starts nothing"
            )
        else:
            architecture = FALLBACK_LOADERS[loaders[0]]
        if loaders != []:
            generations.append("V2")
    if table.has_boot_code and _has_bios_loader(table):
        generations.append("V1")
    if not generations:
        notes.append("neither generation starts it: no EFI system partition with a loader, no boot code for a BIOS")
    return Layout(tuple(generations), architecture, (*notes, *table.faults))


def _has_bios_loader(table: PartitionTable) -> bool:
    """Tell whether the boot code has something to go on with: GRUB's core, or a partition with a boot sector."""
    return table.kind != "gpt" or any(part.type == BIOS_BOOT or part.bootable for part in table.partitions)
