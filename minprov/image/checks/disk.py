"""Checks of disks: what is mounted, by which name, what is swapped on, and how the disk is laid out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from minprov.formats.fstab import Mount, parse_fstab
from minprov.formats.partitions import BIOS_BOOT
from minprov.formats.superblocks import LAYERS
from minprov.image.findings import Check, Found, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.model import Disk, Volume
    from minprov.image.subject import Subject

GENERIC = "https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic"
FSTAB = "/etc/fstab"
MOUNT_UNITS = ("/etc/systemd/system/*.mount", "/usr/lib/systemd/system/*.mount")
FOREIGN = re.compile(
    r"/dev/((vd|xvd|hd|mmcblk|loop|mapper/loop)"
    r"|disk/by-id/(ata|nvme|scsi|usb|virtio|wwn)-"  # by a serial number
    r"|disk/by-path/(?!.*(?i:vmbus)))"
)
"""Devices that a VM on Azure does not have."""
TAGS = ("UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=")
UNSTABLE = re.compile(r"/dev/(sd[a-z]|nvme\d)\w*")
OPTICAL = re.compile(r"/dev/(sr\d|cdrom|dvd)")
RESOURCE = re.compile(r"/dev/disk/(cloud/azure_resource|azure/resource)|/dev/disk/azure/scsi0/lun1\b")
DEVICE_FIX = "Name the file system by UUID=…, as `blkid` prints it, LABEL=… or PARTUUID=…."
RESUME = re.compile(r"resume=(?!none\b)\S+")


def judge_root(subject: Subject) -> Iterator[Found]:
    """Look for devices of the machine that built the image on command lines, and in the initramfs."""
    for line in subject.command_lines:
        for word in line.words:
            key, _, value = word.partition("=")
            if key in ("root", "resume", "real_root"):
                yield from _device(value, f"{key}=", line.file, line.line, next_one=line.is_next)
    for started in subject.started:
        if started.kernel is None or not (started.initrds or started.unified):
            continue
        for path, archive in subject.initrds(started):
            for name, text in archive.contents.items():
                for found in re.finditer(r"\broot=(\S+)", text):
                    yield from _device(found[1], "root=", f"{path}: {name}", None)


def judge_fstab(subject: Subject) -> Iterator[Found]:
    """Look for devices by names that a VM does not have, or not always."""
    for file, mount in [*((FSTAB, mount) for mount in _mounts(subject)), *_mount_units(subject)]:
        if mount.kind == "swap" or "noauto" in mount.options:
            continue
        place = (file, mount.line, f"{mount.spec} {mount.target}")
        optional = "nofail" in mount.options
        if FOREIGN.match(mount.spec) and not optional:
            yield Found(f"{mount.target} is on {mount.spec}, which a VM has not", *place)
        elif UNSTABLE.match(mount.spec):
            what = f"{mount.target} is on {mount.spec}, a name that changes with the disks and the size of a VM"
            yield Found(what, *place, Severity.RISK)
        elif OPTICAL.match(mount.spec) and not optional:
            what = f"{mount.target} is the optical drive, which is empty after provisioning"
            yield Found(what, *place, Severity.RISK)
        elif RESOURCE.match(mount.spec) and not optional:
            what = f"{mount.target} is the temporary disk, which not all sizes have, without nofail"
            fix = f"Add nofail,x-systemd.device-timeout=2s to {file}:{mount.line}."
            yield Found(what, *place, Severity.RISK, fix)
        elif subject.disk and not optional and _is_nowhere(subject.disk, mount.spec):
            yield Found(f"{mount.target} is on {mount.spec}, which no partition of this disk is", *place)


def judge_swap(subject: Subject) -> Iterator[Found]:
    """Look for swap on the OS disk, by fstab, units and partitions."""
    for mount in _mounts(subject):
        if mount.kind == "swap" and not RESOURCE.match(mount.spec) and "noauto" not in mount.options:
            yield _line(f"swap is on {mount.spec}", mount)
    for path in subject.tree.glob("/etc/systemd/system/*.swap"):
        if subject.services.starts(path.rpartition("/")[2]):
            yield Found("a swap unit is enabled", path)
    for line in subject.command_lines_in_use:
        if found := RESUME.search(line.options):
            yield Found("the kernel is to resume from swap", line.file, line.line, found[0])
    for volume in subject.disk.volumes if subject.disk else ():
        if volume.contents and volume.contents.kind == "swap":
            yield Found(f"partition {volume.partition.number} is swap", subject.disk and subject.disk.path)


def judge_layers(subject: Subject) -> Iterator[Found]:
    """Look for LVM, encryption and arrays under the file systems."""
    for volume in subject.disk.volumes if subject.disk else ():
        kind = _kind(volume)
        if kind in LAYERS:
            severity = Severity.ADVICE if kind == "LVM" else Severity.RISK
            what = f"partition {volume.partition.number} is {kind}"
            yield Found(what, subject.disk and subject.disk.path, severity=severity)
        if volume.unread:
            what = f"partition {volume.partition.number} was not read: {volume.unread}"
            yield Found(what, subject.disk and subject.disk.path, severity=Severity.UNKNOWN, fix="Look at it by hand.")
    if subject.disk is None:
        for mount in _mounts(subject):
            if mount.spec.startswith("/dev/mapper/") and mount.target in ("/", "/usr", "/boot"):
                yield _line(f"{mount.target} is on {mount.spec}, a logical volume or a mapping", mount)


def judge_generations(subject: Subject) -> Iterator[Found]:
    """Look at which generations can start the disk."""
    if subject.disk is None:
        return
    generations, wanted = subject.disk.layout.generations, subject.purpose.generation
    path = subject.disk.path
    notes = "; ".join(subject.disk.layout.notes)
    if not generations:
        yield Found(f"neither generation starts this disk: {notes}", path, severity=Severity.FAILS)
    elif wanted and f"V{wanted}" not in generations:
        yield Found(f"generation {wanted} does not start this disk: {notes}", path, severity=Severity.FAILS)
    else:
        yield Found(f"generation {' and '.join(name[1:] for name in generations)} can start this disk", path)
    for fault in subject.disk.table.faults if subject.disk.table else ():
        yield Found(fault, path, severity=Severity.RISK)


def judge_vhd(subject: Subject) -> Iterator[Found]:
    """Look at what Azure refuses of a VHD."""
    if subject.disk is None:
        return
    for violation in subject.disk.vhd_violations or ():
        what = f"{violation.field} is {violation.found}, and Azure wants {violation.wanted}"
        yield Found(what, subject.disk.path)
    if subject.disk.vhd_violations is None and subject.disk.path.lower().endswith(".vhd"):
        what = f"it is called .vhd, and is {subject.disk.format.value}: it has no footer with the cookie 'conectix'"
        yield Found(what, subject.disk.path)


def judge_size(subject: Subject) -> Iterator[Found]:
    """Look for something that lets the root file system grow to the size of the VM's disk."""
    tree = subject.tree
    grows = tree.glob(
        *("/usr/bin/growpart", "/usr/share/initramfs-tools/scripts/local-bottom/growroot"),
        *("/etc/repart.d/*.conf", "/usr/lib/repart.d/*.conf"),
    )
    if not grows and not any("x-systemd.growfs" in mount.options for mount in _mounts(subject)):
        yield Found("nothing lets the root file system grow on the first boot")


def _device(value: str, key: str, file: str, line: int | None, *, next_one: bool = False) -> Iterator[Found]:
    if FOREIGN.match(value):
        severity = Severity.RISK if next_one else None
        yield Found(f"{key} names {value}, which a VM has not", file, line, f"{key}{value}", severity)
    elif UNSTABLE.match(value):
        what = f"{key} names {value}, a name that changes with the disks and the size of a VM"
        yield Found(what, file, line, f"{key}{value}", Severity.RISK)


def _mounts(subject: Subject) -> list[Mount]:
    return parse_fstab(subject.tree.text(FSTAB) or "")


def _mount_units(subject: Subject) -> Iterator[tuple[str, Mount]]:
    """Yield the mounts that units have started; one that is merely wanted does not end the boot where it fails."""
    for path in subject.tree.glob(*MOUNT_UNITS):
        link = subject.services.starts(path.rpartition("/")[2])
        values = {}
        for number, line in subject.tree.lines(path):
            key, _, value = line.partition("=")
            values[key.strip()] = (number, value.strip())
        if link and "What" in values and "Where" in values:
            number, spec = values["What"]
            kind, options = (values.get(key, (0, ""))[1] for key in ("Type", "Options"))
            nofail = ("nofail",) if ".wants/" in link else ()
            yield path, Mount(number, spec, values["Where"][1], kind, (*options.split(","), *nofail))


def _is_nowhere(disk: Disk, spec: str) -> bool:
    """Tell whether a tag is that of no volume of a disk, all of whose volumes are known."""
    known = all(volume.partition.type == BIOS_BOOT or _kind(volume) not in ("", *LAYERS) for volume in disk.volumes)
    return known and spec.startswith(TAGS) and not any(volume.answers_to(spec) for volume in disk.volumes)


def _kind(volume: Volume) -> str:
    return volume.contents.kind if volume.contents else ""


def _line(what: str, mount: Mount) -> Found:
    return Found(what, FSTAB, mount.line, f"{mount.spec} {mount.target}")


CHECKS = (
    Check(
        "root-device",
        Severity.FAILS,
        "root= names a UUID or a label, and nothing that the machine which built the image had",
        "The OS disk of a VM is a SCSI or an NVMe disk: names of virtio, Xen and loop devices never appear.",
        f"{GENERIC}; dracut#942",
        judge_root,
        {
            "debian": "Remove GRUB_DISABLE_LINUX_UUID from /etc/default/grub; update-grub; update-initramfs -u -k all",
            "rhel": "grubby --update-kernel=ALL --args=root=UUID=…; rm /etc/cmdline.d/*; dracut -f --regenerate-all",
            "suse": "Remove GRUB_DISABLE_LINUX_UUID from /etc/default/grub; grub2-mkconfig -o /boot/grub2/grub.cfg; "
            "dracut -f --regenerate-all",
            "other": "Write root=UUID=…, as `blkid` prints it, or root=PARTUUID=…; build the initramfs anew.",
        },
    ),
    Check(
        "fstab",
        Severity.FAILS,
        "file systems are named by UUID, LABEL or PARTUUID; what not every VM has is nofail",
        "A device that does not appear ends the boot in emergency mode; names of SCSI and NVMe disks change.",
        "https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic; runner-images#14753",
        judge_fstab,
        DEVICE_FIX,
    ),
    Check(
        "swap-os-disk",
        Severity.RISK,
        "no swap on the OS disk",
        "The OS disk is remote and its operations are counted; swap belongs on the temporary disk.",
        GENERIC,
        judge_swap,
        "Delete the line, unit or partition, and resume= from the command line; minprov's [swap] makes swap on the "
        "temporary disk.",
    ),
    Check(
        "disk-layers",
        Severity.ADVICE,
        "no LVM, encryption or array under the OS disk's file systems",
        "An OS disk that another VM is to repair may clash with that one's volume group, or not be readable there.",
        GENERIC,
        judge_layers,
        "Use plain partitions.",
    ),
    Check(
        "generations",
        Severity.TOLD,
        "the disk's layout can be started by the generation that is meant",
        "Generation 2 starts a loader on the EFI system partition, generation 1 the boot code of the first sector.",
        "https://learn.microsoft.com/azure/virtual-machines/generation-2",
        judge_generations,
        "Create the image definition with this --hyper-v-generation; docs/vhd.md says what each needs.",
    ),
    Check(
        "vhd",
        Severity.FAILS,
        "a VHD is fixed, whole MiB long, and has a sound footer",
        "Azure refuses it when a disk is made of it, after the upload.",
        GENERIC,
        judge_vhd,
        "minprov vhd IMAGE OUT",
    ),
    Check(
        "size",
        Severity.TOLD,
        "the root file system can grow to the size of the VM's disk",
        "VMs may be created with a larger OS disk than the image has.",
        "docs/grow-root.md",
        judge_size,
        {
            "debian": "apt install cloud-guest-utils cloud-initramfs-growroot",
            "rhel": "dnf install cloud-utils-growpart, and a unit that runs growpart; see docs/grow-root.md",
            "other": "See docs/grow-root.md: growpart, or systemd-repart with x-systemd.growfs.",
        },
    ),
)
