"""Time-outs of disks: one udev rule for what is attached later, and sysfs for what is there. Larger values stay.

Azure's disks may take long to answer. hv_storvsc allows for that, other drivers give up after 30 s; for remote NVMe
disks the platform asks for 240 s, azure-vm-utils' udev/80-azure-disk.rules. Local NVMe disks are no business of this.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.duties.resource_disk.discovery import REMOTE_NVME, nvme_model, read_attribute
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System
from minprov.properties.inspection import Inspection

if TYPE_CHECKING:
    from minprov.duties.resource_disk.disk import Here
    from minprov.duties.resource_disk.settings import Options

# Values that a driver gives: what is none of these somebody has chosen.
SCSI_DEFAULTS = (30, 60, 90, 180)
NVME_DEFAULT = 30
DISK_TYPE = "0"
# Whose rule says the same for NVMe.
VM_UTILS_RULES = ("/usr/lib/udev/rules.d/80-azure-disk.rules", "/etc/udev/rules.d/80-azure-disk.rules")
RULES = """\
# Written by minprov, which keeps it as it is: the time-outs of Azure's disks, where the driver's own value is in force.
ACTION=="add", SUBSYSTEM=="scsi", ENV{{DEVTYPE}}=="scsi_device", ATTR{{type}}=="0", ATTR{{vendor}}=="Msft*", \
ATTR{{timeout}}=="{defaults}", ATTR{{timeout}}="{scsi:.0f}"
"""
NVME_RULE = """\
ACTION=="add", SUBSYSTEM=="block", ENV{{DEVTYPE}}=="disk", KERNEL=="nvme*", ATTRS{{model}}=="MSFT NVMe Accelerator*", \
ATTR{{queue/io_timeout}}=="{default}", ATTR{{queue/io_timeout}}="{nvme:.0f}"
"""


class Timeout(NamedTuple):
    """A disk's time-out: the attribute, what it says and what it is to say at least."""

    disk: str
    path: str
    value: int
    wanted: int
    unit: str

    def __str__(self) -> str:
        return f"{self.disk} {self.value} {self.unit}"


async def inspect(options: Options, here: Here) -> Inspection:
    """Tell whether the rule is there and every disk has its time-out."""
    short = _too_short(options, here)
    said = [f"{timeout}, to be {timeout.wanted} {timeout.unit}" for timeout in short]
    rule = _is_written(options)
    if not rule and _can_write(options):
        said.append("no udev rule")
    if said:
        return Inspection(False, "; ".join(said))
    return Inspection(True, "as wanted" if rule else f"{options.rules_file} cannot be written: until the next boot")


async def converge(options: Options, here: Here) -> None:
    """Write the rule first, so that no disk that comes now is missed, then the values."""
    if not _is_written(options) and _can_write(options):
        await System().replace(options.rules_file, rules(options).encode(), mode=0o644)
    for timeout in _too_short(options, here):
        try:
            descriptor = os.open(timeout.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, f"{timeout.wanted}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ProvisioningError(Reason.DISK_TIMEOUT_NOT_SET, path=timeout.path, detail=error.strerror) from error
    for timeout in _too_short(options, here):
        raise ProvisioningError(Reason.DISK_TIMEOUT_NOT_SET, path=timeout.path, detail=f"{timeout.value} reads back")


def rules(options: Options) -> str:
    """Return the udev rules: udev cannot compare numbers, so they name the values that are too short."""
    short = [str(value) for value in SCSI_DEFAULTS if value < options.timeout_scsi]
    text = RULES.format(defaults="|".join(short), scsi=options.timeout_scsi) if short else RULES.partition("ACTION")[0]
    if options.timeout_nvme_remote > NVME_DEFAULT and not any(map(os.path.exists, VM_UTILS_RULES)):
        text += NVME_RULE.format(default=NVME_DEFAULT * 1000, nvme=options.timeout_nvme_remote * 1000)
    return text


def _too_short(options: Options, here: Here) -> list[Timeout]:
    """Return the time-outs that are shorter than they should be, in the order of the disks' names."""
    block = f"{here.sysfs}/block"
    timeouts = []
    for name in sorted(os.listdir(block)) if os.path.isdir(block) else []:
        device = f"{block}/{name}/device"
        if nvme_model(here.sysfs, name).startswith(REMOTE_NVME):
            wanted = round(options.timeout_nvme_remote * 1000)
            timeouts.append(_read_timeout(name, f"{block}/{name}/queue/io_timeout", wanted, "ms"))
        elif read_attribute(f"{device}/vendor").startswith("Msft") and read_attribute(f"{device}/type") == DISK_TYPE:
            timeouts.append(_read_timeout(name, f"{device}/timeout", round(options.timeout_scsi), "s"))
    return [timeout for timeout in timeouts if timeout.value < timeout.wanted]


def _read_timeout(disk: str, path: str, wanted: int, unit: str) -> Timeout:
    text = read_attribute(path)
    if not text.isdigit():
        raise ProvisioningError(Reason.DISK_TIMEOUT_NOT_SET, path=path, detail="the kernel does not show it")
    return Timeout(disk, path, int(text), wanted, unit)


def _is_written(options: Options) -> bool:
    try:
        with open(options.rules_file, encoding="utf-8", errors="replace") as stream:
            return stream.read() == rules(options)
    except OSError:
        return False


def _can_write(options: Options) -> bool:
    """Tell whether the file system takes the rule; on a read-only one the values hold until the next boot."""
    directory = os.path.dirname(options.rules_file)
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    return not os.statvfs(directory).f_flag & os.ST_RDONLY
