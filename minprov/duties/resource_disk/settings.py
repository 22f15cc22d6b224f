"""What can be configured of the temporary disk, its swap, and the time-outs of disks: all of it is off by default."""

from minprov.actions import Policy
from minprov.config import Schema, Setting
from minprov.definitions import Enum, NamedTuple


class FileSystem(Enum):
    """What an empty disk is formatted with."""

    EXT4 = "ext4"
    XFS = "xfs"
    BTRFS = "btrfs"


class Disks(Enum):
    """Which kind of temporary disk is meant where a VM has both."""

    SCSI_OR_NVME = "scsi-or-nvme"
    SCSI = "scsi"
    NVME = "nvme"


class Format(Enum):
    """What may be formatted."""

    EMPTY = "empty"
    NEVER = "never"


class Options(NamedTuple):
    """Every setting, with its default."""

    resource_disk: Policy = Policy.OFF
    mount_point: str = "/mnt/resource"
    file_system: FileSystem = FileSystem.EXT4
    mount_options: str = "nodev,nosuid,noatime"
    disks: Disks = Disks.SCSI_OR_NVME
    device: str = ""
    format: Format = Format.EMPTY
    swap: Policy = Policy.OFF
    swap_size: str = "auto"
    swap_priority: int = 0
    timeouts: Policy = Policy.OFF
    timeout_scsi: float = 300.0
    timeout_nvme_remote: float = 240.0
    rules_file: str = "/etc/udev/rules.d/70-minprov-timeouts.rules"


ABSOLUTE = r"/[^\s\x00]*"
SETTINGS = {
    "resource-disk.policy": Setting("resource_disk", "Format the temporary disk if it is empty, and mount it."),
    "resource-disk.mount-point": Setting(
        "mount_point", "Where: a directory that is empty or not there yet.", ABSOLUTE, "an absolute path without spaces"
    ),
    "resource-disk.file-system": Setting("file_system", "What an empty disk is formatted with."),
    "resource-disk.options": Setting(
        "mount_options", "Options of the mount.", r"[\w=.,:+@%/-]+", "mount options with commas between them"
    ),
    "resource-disk.disks": Setting("disks", "Which disk is meant where there are both; SCSI comes first."),
    "resource-disk.device": Setting(
        "device",
        "A device in place of the one that sysfs shows to be the temporary disk; what is on it decides all the same.",
        rf"(/dev/{ABSOLUTE[1:]})?",
        "a path below /dev",
    ),
    "resource-disk.format": Setting("format", "`never`: mount only what minprov has formatted before."),
    "swap.policy": Setting("swap", "Make a swap file on the temporary disk, and turn it on."),
    "swap.size": Setting(
        "swap_size",
        "Its size, as in `2GiB` or `512MiB`; `auto` goes by the memory. Never more than half of the free space.",
        r"auto|[1-9][0-9]{0,6}[MG]iB",
        "auto, or a size as in 2GiB or 512MiB",
    ),
    "swap.priority": Setting("swap_priority", "Its priority, swapon(8)."),
    "disk-timeouts.policy": Setting("timeouts", "Raise the time-outs of disks, those attached later as well."),
    "disk-timeouts.scsi": Setting("timeout_scsi", "Seconds for a request to a SCSI disk; larger values stay."),
    "disk-timeouts.nvme-remote": Setting(
        "timeout_nvme_remote", "Seconds for a request to a remote NVMe disk; larger values stay."
    ),
    "disk-timeouts.rules-file": Setting(
        "rules_file", "The udev rule for disks that are attached later.", ABSOLUTE, "an absolute path without spaces"
    ),
}
SCHEMA = Schema(Options, SETTINGS, unit="minprov-resource-disk.service")
