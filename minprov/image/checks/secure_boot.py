"""The check of Secure Boot: each program of the chain is signed, by a key that the one before it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minprov.image.boot import FALLBACK, SECOND
from minprov.image.findings import Check, Found, Severity
from minprov.image.signatures import Program, Verdict, read_program, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.subject import Subject


def judge_signatures(subject: Subject) -> Iterator[Found]:
    """Look for signatures on the loaders and on each kernel, whether they hold, and who made them."""
    if not subject.may_be_generation_2:
        return
    loaders = subject.tree.glob(*FALLBACK)
    paths = [*loaders, *subject.tree.glob(*SECOND)]
    paths += [started.kernel.image for started in subject.started if started.kernel and started.kernel.image]
    paths += [started.entry.file for started in subject.started if started.unified]
    programs = {path: _read(subject, path) for path in dict.fromkeys(paths)}
    severity = Severity.FAILS if subject.purpose.trusted_launch else None
    for path, program in programs.items():
        if program is None or not program.signatures:
            what = f"{'not signed' if program else 'no EFI program'}: Secure Boot does not start it"
            yield Found(what, path, severity=severity)
        elif program.cut_off:
            yield _changed(path)
        elif path in loaders and not program.microsoft:
            what = "signed, and not by Microsoft: Secure Boot starts it only with a key from the image definition"
            yield Found(what, path)
    if subject.disk and not loaders:
        what = "not judged: no boot loader for UEFI is in the tree of this disk"
        yield Found(what, subject.disk.path, severity=Severity.UNKNOWN, fix="Look at it by hand.")
    # Last, for what cannot be verified here leaves the rest unknown.
    vendor = [der for path in loaders if (shim := programs[path]) for der in shim.vendor]
    for path, program in programs.items():
        if program and program.signatures and not program.cut_off:
            yield from _verified(subject, path, program.microsoft if path in loaders else vendor, path in loaders)


def _read(subject: Subject, path: str) -> Program | None:
    with subject.tree.open(path) as file:
        return read_program(file)


def _verified(subject: Subject, path: str, certificates: list[bytes], is_loader: bool) -> Iterator[Found]:
    with subject.tree.open(path) as file:
        verdict = verify(file, certificates)
    if verdict is Verdict.CHANGED:
        yield _changed(path)
    elif verdict is Verdict.FOREIGN and certificates:
        whom = "Microsoft's" if is_loader else "shim's"
        yield Found(f"signed by a key that is none of {whom}: Secure Boot does not start it", path)


def _changed(path: str) -> Found:
    return Found("changed after it was signed: Secure Boot does not start it", path, severity=Severity.FAILS)


CHECKS = (
    Check(
        "secure-boot",
        Severity.RISK,
        "for generation 2, the boot loader and each kernel are signed, by keys that are known, and not changed since",
        "Trusted Launch, Azure's default for generation 2, has Secure Boot: it starts nothing that is not signed.",
        "https://learn.microsoft.com/azure/virtual-machines/trusted-launch",
        judge_signatures,
        {
            "debian": "apt install shim-signed grub-efi-amd64-signed linux-image-amd64; grub-install --removable",
            "rhel": "dnf install shim-x64 grub2-efi-x64 kernel-core",
            "suse": "zypper install shim grub2-x86_64-efi kernel-default; shim-install --removable",
            "other": "Sign them by a key that the image definition brings, or create VMs of --security-type Standard.",
        },
    ),
)
