"""The processors that a guest can have, by Azure's names for them, and the machine that QEMU makes with each."""

from __future__ import annotations

from minprov.definitions import NamedTuple


class Architecture(NamedTuple):
    """A kind of processor; `name` is QEMU's for it, `machine` the machine that firmware has to be for."""

    name: str
    machine: str
    options: tuple[str, ...]
    firmware_package: str

    @property
    def qemu(self) -> str:
        """Return the program that emulates it."""
        return f"qemu-system-{self.name}"


# Five-level paging and nested virtualization are slow to emulate.
X64 = Architecture("x86_64", "pc-i440fx-7.2", ("-machine", "pc", "-cpu", "max,la57=off,svm=off"), "ovmf")
# Azure's first arm64 machines have this processor:
# https://learn.microsoft.com/azure/virtual-machines/sizes/general-purpose/dpsv5-series
ARM64 = Architecture("aarch64", "virt-7.2", ("-machine", "virt", "-cpu", "neoverse-n1"), "qemu-efi-aarch64")

ARCHITECTURES = {"x64": X64, "Arm64": ARM64}
