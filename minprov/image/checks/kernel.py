"""Checks of kernels and their initramfs: a VM on Azure has Hyper-V's disk and network, and an optical drive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minprov.image.findings import Check, Found, Severity
from minprov.image.kernels import Driver, Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.boot import Started
    from minprov.image.subject import Subject

GENERIC = "https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic"
HYPERV = ("hv_vmbus", "hv_storvsc", "hv_netvsc", "hv_utils")
NEEDED_FOR_ROOT = ("hv_vmbus", "hv_storvsc")
NEEDED_FOR_NVME = ("nvme", "nvme_core")

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
    "alpine": 'Append " hv" … hv_vmbus hv_storvsc hv_netvsc … to features in /etc/mkinitfs/mkinitfs.conf; mkinitfs',
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


def _version_text(kernel: Kernel) -> str:
    return ".".join(map(str, kernel.version))


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
)
