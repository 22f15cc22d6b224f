"""Checks of the kernel's command line: what a person sees of a boot on the serial console, and how long it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minprov.image.findings import Check, Found, Severity, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.boot import CommandLine
    from minprov.image.subject import Subject

GENERIC = "https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic"
SERIAL = ("ttyS0", "ttyAMA0")
LONG_DELAY = 10
QUIET = ("rhgb", "quiet", "splash", "crashkernel=auto")

COMMAND_LINE_FIX = {
    "debian": 'In /etc/default/grub: GRUB_CMDLINE_LINUX="{words}"; then update-grub',
    "rhel": 'grubby --update-kernel=ALL --args="{words}"; and the same in GRUB_CMDLINE_LINUX of /etc/default/grub',
    "suse": 'In /etc/default/grub: GRUB_CMDLINE_LINUX_DEFAULT="{words}"; then grub2-mkconfig -o /boot/grub2/grub.cfg',
    "arch": 'In /etc/default/grub: GRUB_CMDLINE_LINUX="{words}"; then grub-mkconfig -o /boot/grub/grub.cfg',
    "alpine": 'In /etc/update-extlinux.conf: default_kernel_opts="{words}"; then update-extlinux',
    "ostree": "rpm-ostree kargs {kargs}",
    "other": "Append to the kernel's command line in the boot loader's configuration: {words}",
}


def judge_console(subject: Subject) -> Iterator[Found]:
    """Look for the serial console as the last one, which is the one that /dev/console is."""
    if not subject.command_lines_in_use:
        yield Found("not judged: no boot loader configuration is in it", severity=Severity.UNKNOWN)
    for line in _judged(subject):
        consoles = [word.partition("=")[2] for word in line.words if word.startswith("console=")]
        device = consoles[-1].partition(",")[0] if consoles else None
        if device not in SERIAL:
            what = "the kernel writes to no serial console" if device is None else f"the last console is {device}"
            yield _found(what, line, f"console={device}" if device else line.options)


def judge_quiet(subject: Subject) -> Iterator[Found]:
    """Look for words that hide what the console would show."""
    for line in _judged(subject):
        words = [word for word in line.words if word in QUIET]
        if words:
            yield _found(f"the command line has {', '.join(words)}", line, " ".join(words))


def judge_rootdelay(subject: Subject) -> Iterator[Found]:
    """Look for rootdelay where the kernel itself mounts root: there it is a sleep, however early the disk appears."""
    for started in subject.started:
        line = started.command_line
        delay = number_of(line.last("rootdelay")) if line else None
        has_initrd = bool(started.initrds or started.missing or started.unified)
        if line and delay and delay >= LONG_DELAY and not has_initrd:
            yield Found(
                f"the kernel sleeps for {delay} s before it mounts root", line.file, line.line, f"rootdelay={delay}"
            )


def _judged(subject: Subject) -> list[CommandLine]:
    """Return the command lines in use, and those that the next entries will have."""
    return [*subject.command_lines_in_use, *(line for line in subject.command_lines if line.is_next and line.options)]


def _found(what: str, line: CommandLine, value: str) -> Found:
    if line.is_next:
        what += ", as soon as the boot loader's configuration is made anew"
    return Found(what, line.file, line.line, value, severity=Severity.ADVICE if line.is_next else None)


def _fix(words: str) -> dict[str, str]:
    kargs = " ".join(f"--append={word}" for word in words.split())
    return {family: text.format(words=words, kargs=kargs) for family, text in COMMAND_LINE_FIX.items()}


CHECKS = (
    Check(
        "console",
        Severity.RISK,
        "the last console= of the kernel's command line is ttyS0, on Arm ttyAMA0",
        "Azure shows the serial console alone; without it a boot that hangs cannot be seen or mended.",
        GENERIC,
        judge_console,
        _fix("console=tty1 console=ttyS0,115200n8 earlyprintk=ttyS0"),
    ),
    Check(
        "quiet",
        Severity.ADVICE,
        "no rhgb, quiet, splash or crashkernel=auto",
        "They hide the messages that the serial console would show; crashkernel=auto takes memory of small VMs.",
        GENERIC,
        judge_quiet,
        "Take these words out of the kernel's command line, in the file named, and make the boot loader's "
        "configuration anew.",
    ),
    Check(
        "rootdelay",
        Severity.RISK,
        "rootwait in place of rootdelay where there is no initramfs",
        "Without an initramfs the kernel waits that long at every boot; rootwait waits for the disk alone.",
        "scylla-machine-image#957; Documentation/admin-guide/kernel-parameters.txt",
        judge_rootdelay,
        "Write rootwait in place of rootdelay=… on the kernel's command line.",
    ),
)
