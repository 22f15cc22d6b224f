"""Which machine this is: what the firmware says through DMI.

Imports nothing but `os`: on every boot but the first this and `state` are the whole program.
"""

from __future__ import annotations

import os

# Decimal ASCII codes of "MSFT AZURE VM": cloud-init's sources/azure/identity.py.
AZURE_CHASSIS_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"


class Identity:
    """Who the machine is; what the kernel does not show is None.

    `dmi_uuid` is product_uuid as the kernel shows it, in lower case, and `vm_id` the platform's VM id.
    """

    def __init__(self, *, chassis_asset_tag: str | None, dmi_uuid: str | None, vm_id: str | None) -> None:
        self.chassis_asset_tag = chassis_asset_tag
        self.dmi_uuid = dmi_uuid
        self.vm_id = vm_id

    @property
    def on_azure(self) -> bool:
        """Whether the firmware names Azure."""
        return self.chassis_asset_tag == AZURE_CHASSIS_ASSET_TAG


def read_identity(sysfs: str = "/sys") -> Identity:
    """Return what the firmware says.

    Generation 1 VMs, those without EFI, store the first three fields of the UUID in the other byte order: cloud-init's
    sources/azure/identity.py.
    """
    uuid = (_read(f"{sysfs}/class/dmi/id/product_uuid") or "").lower()
    dmi_uuid = uuid if _is_uuid(uuid) else None
    swapped = dmi_uuid is not None and not os.path.exists(f"{sysfs}/firmware/efi")
    return Identity(
        chassis_asset_tag=_read(f"{sysfs}/class/dmi/id/chassis_asset_tag"),
        dmi_uuid=dmi_uuid,
        vm_id=swap_byte_order(uuid) if swapped else dmi_uuid,
    )


def swap_byte_order(uuid: str) -> str:
    """Return the UUID with its first three fields in the other byte order (SMBIOS 2.6, 7.2.1)."""
    fields = uuid.split("-")
    swapped = ["".join(reversed([field[i : i + 2] for i in range(0, len(field), 2)])) for field in fields[:3]]
    return "-".join([*swapped, *fields[3:]])


def _is_uuid(text: str) -> bool:
    return [len(field) for field in text.split("-")] == [8, 4, 4, 4, 12] and not set(text) - set("0123456789abcdef-")


def _read(path: str) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 256).decode("ascii", errors="replace").strip()
        finally:
            os.close(descriptor)
    except OSError:
        return None
