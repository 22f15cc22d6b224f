"""Checks of kernels and their initramfs: a VM on Azure has Hyper-V's disk and network, and an optical drive."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from minprov.image.findings import Check, Found, Severity, number_of
from minprov.image.kernels import Driver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.boot import Started
    from minprov.image.subject import Subject

GENERIC = "https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic"
HYPERV = ("hv_vmbus", "hv_storvsc", "hv_netvsc", "hv_utils")
NEEDED_FOR_ROOT = ("hv_vmbus", "hv_storvsc")
NEEDED_FOR_NVME = ("nvme", "nvme_core")

NUMA_FIXED, ALL_FIXES = (2, 6, 37), (4, 4)
NVME_TIMEOUT, DEFAULT_NVME_TIMEOUT = 240, 30
RULE_DIRECTORIES = ("/etc/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d")
MODPROBE = ("/etc/modprobe.d/*.conf", "/usr/lib/modprobe.d/*.conf", "/lib/modprobe.d/*.conf")

KERNEL_FIX = {
    "debian": "apt install linux-image-cloud-amd64 (or linux-image-amd64; Ubuntu: linux-azure)",
    "rhel": "dnf install kernel-core kernel-modules-core kernel-modules",
    "suse": "zypper install kernel-default (or kernel-azure)",
    "arch": "pacman -S linux",
    "alpine": "apk add linux-lts; linux-virt has the Hyper-V drivers as well",
    "gentoo": "emerge sys-kernel/gentoo-kernel, or set CONFIG_HYPERV, CONFIG_HYPERV_STORAGE, CONFIG_HYPERV_NET, "
    "CONFIG_HYPERV_UTILS and CONFIG_BLK_DEV_SR",
    "other": "Build the kernel with CONFIG_HYPERV, CONFIG_HYPERV_STORAGE, CONFIG_HYPERV_NET, CONFIG_HYPERV_UTILS and "
    "CONFIG_BLK_DEV_SR, built in or as modules.",
}
INITRAMFS_FIX = {
    "debian": "printf '%s\\n' hv_vmbus hv_storvsc hv_netvsc >>/etc/initramfs-tools/modules; update-initramfs -u -k all",
    "rhel": "echo 'add_drivers+=\" hv_vmbus hv_storvsc hv_netvsc \"' >/etc/dracut.conf.d/hyperv.conf; "
    "dracut -f --regenerate-all",
    "suse": "echo 'add_drivers+=\" hv_vmbus hv_storvsc hv_netvsc \"' >/etc/dracut.conf.d/hyperv.conf; "
    "dracut -f --regenerate-all",
    "arch": "Set MODULES=(hv_vmbus hv_storvsc hv_netvsc) in /etc/mkinitcpio.conf; mkinitcpio -P",
    "alpine": "printf '%s\\n' 'kernel/drivers/hv/*' 'kernel/drivers/scsi/hv_storvsc.ko*' "
    ">/etc/mkinitfs/features.d/hyperv.modules; add hyperv to features= in /etc/mkinitfs/mkinitfs.conf; mkinitfs",
    "gentoo": "echo 'add_drivers+=\" hv_vmbus hv_storvsc hv_netvsc \"' >/etc/dracut.conf.d/hyperv.conf; "
    "dracut -f --regenerate-all",
    "ostree": "rpm-ostree initramfs --enable --arg=--add-drivers --arg='hv_vmbus hv_storvsc hv_netvsc'",
    "other": "Add hv_vmbus, hv_storvsc and hv_netvsc to the initramfs and build it anew.",
}


def judge_hyperv(subject: Subject) -> Iterator[Found]:
    """Look for the drivers of disk, network and host in each kernel."""
    yield from _lacking(subject, HYPERV)


def judge_optical(subject: Subject) -> Iterator[Found]:
    """Look for the driver of the drive with the provisioning media."""
    yield from _lacking(subject, ("sr_mod", "cdrom"))
    if subject.may_be_generation_1:
        for kernel in subject.kernels:
            if all(kernel.driver(name) is Driver.ABSENT for name in ("ata_piix", "ata_generic")):
                what = f"kernel {kernel.release} has no driver for the IDE drive of generation 1: ata_piix"
                yield Found(what, kernel.evidence)


def judge_initramfs(subject: Subject) -> Iterator[Found]:
    """Look for the drivers that are modules in the initramfs, which has to reach the root disk by them."""
    yield from _lacking_in_initramfs(subject, NEEDED_FOR_ROOT)
    for started in subject.started:
        if started.kernel is None or started.initrds or started.missing or _has_own_initrd(started):
            continue
        modules = [name for name in NEEDED_FOR_ROOT if started.kernel.driver(name) is Driver.MODULE]
        if modules and "INITRAMFS_SOURCE" in started.kernel.config:
            what = f"not judged: the initramfs of kernel {started.kernel.release} is in the kernel itself"
            yield Found(what, started.kernel.evidence, severity=Severity.UNKNOWN, fix="Look at it by hand.")
        elif modules:
            what = f"kernel {started.kernel.release} has no initramfs, and {' and '.join(modules)} only as modules"
            yield Found(what, started.entry.file, started.entry.line)


def judge_vfat(subject: Subject) -> Iterator[Found]:
    """Look for the file system of the EFI system partition."""
    if subject.may_be_generation_2 and subject.kernels:
        yield from _lacking(subject, ("vfat",))
        for path, number, line in _switched_off(subject, "vfat"):
            yield Found("vfat is switched off", path, number, line)


def judge_udf(subject: Subject) -> Iterator[Found]:
    """Look for udf where an agent is going to mount the media; minprov reads it by itself."""
    agents = [name for name in ("waagent", "walinuxagent", "cloud-init") if subject.services.starts(name)]
    if not agents or not subject.kernels:
        return
    for found in _lacking(subject, ("udf",)):
        yield found._replace(what=f"{found.what}, and {agents[0]} mounts the media")
    for path, number, line in _switched_off(subject, "udf"):
        yield Found(f"udf is switched off, and {agents[0]} mounts the media", path, number, line)


def judge_age(subject: Subject) -> Iterator[Found]:
    """Look for kernels from before what the platform needs was in them."""
    for kernel in subject.kernels:
        if not kernel.version:
            continue
        if kernel.version < NUMA_FIXED and not any("numa=off" in line.words for line in subject.command_lines):
            yield Found(f"kernel {kernel.release} is older than 2.6.37: it needs numa=off", kernel.evidence)
        elif kernel.version < ALL_FIXES:
            what = f"kernel {kernel.release} is older than 4.4: see that it has the fixes of hv_storvsc and ata_piix"
            yield Found(what, kernel.evidence, severity=Severity.ADVICE)


def judge_nvme(subject: Subject) -> Iterator[Found]:
    """Look for what remote NVMe disks need: the driver at hand, a long time-out, generation 2."""
    severity = Severity.FAILS if subject.purpose.nvme else None
    for kernel in subject.kernels:
        lacking = [name for name in NEEDED_FOR_NVME if kernel.driver(name) is Driver.ABSENT]
        if lacking:
            yield Found(f"kernel {kernel.release} has no {', '.join(lacking)}", kernel.evidence, severity=severity)
    for found in _lacking_in_initramfs(subject, NEEDED_FOR_NVME):
        yield found._replace(severity=severity, fix=NVME_INITRAMFS_FIX)
    rules = any(subject.tree.glob(f"{directory}/*azure-disk.rules") for directory in RULE_DIRECTORIES)
    for line in subject.command_lines_in_use:
        seconds = number_of(line.last("nvme_core.io_timeout")) or DEFAULT_NVME_TIMEOUT
        if not rules and seconds < NVME_TIMEOUT:
            what = f"the time-out of NVMe disks is {seconds} s: a host that recovers takes longer"
            yield Found(what, line.file, line.line, severity=Severity.RISK if subject.purpose.nvme else Severity.ADVICE)
    if subject.purpose.nvme and subject.disk and "V2" not in subject.disk.layout.generations:
        yield Found("sizes with remote NVMe disks are generation 2 alone", subject.disk.path, severity=severity)


def judge_boot_files(subject: Subject) -> Iterator[Found]:
    """Look for what the boot loader names and is not there."""
    for started in subject.started:
        for path in started.missing:
            yield Found(f"the boot loader starts {path}, which is not there", started.entry.file, started.entry.line)


def _switched_off(subject: Subject, module: str) -> Iterator[tuple[str, int, str]]:
    """Yield the lines of modprobe's configuration that keep a module from being loaded."""
    off = re.compile(rf"install\s+{module}\s+/(usr/)?bin/(true|false)|blacklist\s+{module}$")
    for path in subject.tree.glob(*MODPROBE):
        for number, line in subject.tree.lines(path):
            if off.match(line):
                yield path, number, line


def _lacking(subject: Subject, drivers: tuple[str, ...]) -> Iterator[Found]:
    if not subject.kernels:
        yield Found("not judged: there is no kernel in it", severity=Severity.UNKNOWN)
    for kernel in subject.kernels:
        lacking = [name for name in drivers if kernel.driver(name) is Driver.ABSENT]
        if lacking:
            yield Found(f"kernel {kernel.release} has no {', '.join(lacking)}", kernel.evidence)


def _lacking_in_initramfs(subject: Subject, drivers: tuple[str, ...]) -> Iterator[Found]:
    for started in subject.started:
        if started.kernel is None or not (started.initrds or _has_own_initrd(started)):
            continue
        needed = [name for name in drivers if started.kernel.driver(name) is Driver.MODULE]
        if not needed:
            continue
        archives = subject.initrds(started)
        lacking = [name for name in needed if not any(name in archive.modules for _, archive in archives)]
        if lacking:
            only = "; it was made for the machine that built it (hostonly)" if _is_hostonly(subject, started) else ""
            what = f"the initramfs of kernel {started.kernel.release} has no {', '.join(lacking)}{only}"
            yield Found(what, archives[-1][0])


def _has_own_initrd(started: Started) -> bool:
    return started.unified is not None and ".initrd" in started.unified.sections


def _is_hostonly(subject: Subject, started: Started) -> bool:
    parameters = [
        archive.contents.get("usr/lib/dracut/build-parameter.txt", "") for _, archive in subject.initrds(started)
    ]
    return any("hostonly" in text or "--hostonly" in text or " -H" in text for text in parameters)


NVME_INITRAMFS_FIX = "Add nvme and nvme_core to the initramfs, as hv_storvsc is, and build it anew."

CHECKS = (
    Check(
        "kernel-hyperv",
        Severity.FAILS,
        "every kernel has hv_vmbus, hv_storvsc, hv_netvsc and hv_utils, built in or as modules",
        "Disk, network and host of a VM on Azure are reached by these drivers alone.",
        GENERIC,
        judge_hyperv,
        KERNEL_FIX,
    ),
    Check(
        "initramfs-hyperv",
        Severity.FAILS,
        "the initramfs has hv_vmbus and hv_storvsc where they are modules",
        "Without them the initramfs never sees the root disk, and the boot ends in its emergency shell.",
        f"{GENERIC}; WALinuxAgent#863, dracut#942",
        judge_initramfs,
        INITRAMFS_FIX,
    ),
    Check(
        "kernel-optical",
        Severity.FAILS,
        "every kernel has sr_mod and cdrom; for generation 1 ata_piix or ata_generic, too",
        "The provisioning media is a DVD. Without its drive the password and customData are lost.",
        "https://learn.microsoft.com/azure/virtual-machines/linux/no-agent; azure-docs#12407",
        judge_optical,
        KERNEL_FIX,
    ),
    Check(
        "kernel-vfat",
        Severity.FAILS,
        "for generation 2, every kernel has vfat",
        "The EFI system partition is vfat: where fstab mounts it, the boot ends in emergency mode without the driver.",
        GENERIC,
        judge_vfat,
        "Remove the line from modprobe.d, or set CONFIG_VFAT_FS in the kernel's configuration.",
    ),
    Check(
        "kernel-udf",
        Severity.ADVICE,
        "where waagent or cloud-init provisions, the kernel has udf",
        "They mount the provisioning media, which is UDF. minprov reads it without the kernel.",
        "https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic",
        judge_udf,
        "Remove the line from modprobe.d (hardening guides add it), or let minprov provision.",
    ),
    Check(
        "kernel-age",
        Severity.RISK,
        "kernels are 4.4 or later; one before 2.6.37 needs numa=off",
        "Older ones lack fixes of the drivers that reach the disks, unless the distribution added them.",
        GENERIC,
        judge_age,
        "Take a later kernel, or append numa=off to its command line.",
    ),
    Check(
        "nvme",
        Severity.RISK,
        "nvme is at hand when the root disk is looked for, nvme_core.io_timeout=240 is on the command line",
        "Sizes of version 6 and later have their disks by NVMe alone, and ask for an image that says so.",
        "https://learn.microsoft.com/azure/virtual-machines/enable-nvme-interface",
        judge_nvme,
        "Append nvme_core.io_timeout=240 to the kernel's command line, or install azure-vm-utils.",
    ),
    Check(
        "boot-files",
        Severity.FAILS,
        "every kernel and initramfs that the boot loader names is there",
        "The boot loader stops where it cannot read them.",
        "UAPI.1 Boot Loader Specification",
        judge_boot_files,
        {
            "debian": "update-initramfs -u -k all; update-grub",
            "rhel": "kernel-install add-all; grub2-mkconfig -o /boot/grub2/grub.cfg",
            "suse": "dracut -f --regenerate-all; grub2-mkconfig -o /boot/grub2/grub.cfg",
            "arch": "mkinitcpio -P; grub-mkconfig -o /boot/grub/grub.cfg",
            "alpine": "mkinitfs; update-extlinux",
            "other": "Make the boot loader's configuration anew.",
        },
    ),
)
