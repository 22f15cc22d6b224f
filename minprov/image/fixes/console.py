"""The serial console on the kernel's command line: of GRUB, of Boot Loader Specification entries, of extlinux.

What the tools of these make their files of is written, too, or the next kernel would be without it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from minprov.image.boot import EXTLINUX, GRUB, NEXT_GRUB, NEXT_PLAIN, SPECIFIED
from minprov.image.fixes.steps import Act, Step, run_step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.subject import Subject
    from minprov.image.tree import Tree
    from minprov.machine.system import System

X86 = ("console=ttyS0,115200n8", "earlyprintk=ttyS0")
ARM = ("console=ttyAMA0",)
SCREEN = "console=tty1"
SERIAL = re.compile(r"console=tty(S|AMA)0\b")
ELF_MACHINE, AARCH64 = slice(18, 20), b"\xb7\0"
"""Where an ELF header has the machine (elf(5)), and what it is on Arm."""
SHELLS = ("/bin/sh", "/usr/bin/sh", "/bin/busybox")
UPDATE_EXTLINUX, KERNEL_OPTIONS = "/etc/update-extlinux.conf", "default_kernel_opts"
GRUB_LINUX, GRUB_DEFAULT = "GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"
OWN_COMMAND_LINE, VENDOR_COMMAND_LINE = NEXT_PLAIN[:2]
WHY = "the last console is the serial one"
MADE_ANEW = "makes the boot loader's configuration anew"


def plan(subject: Subject, system: System) -> Iterator[Step]:
    """Yield what the boot loaders that are there need."""
    tree = subject.tree
    wanted = ARM if _is_arm(tree) else X86
    changed = set()
    for path, contents in _texts(tree, wanted):
        if contents != tree.text(path):
            target = tree.target(path)
            changed.add(path)
            yield Step(Act.WRITE, target, WHY, contents.encode())
    in_use = [line for line in subject.command_lines_in_use if line.file in tree.glob(*GRUB)]
    # Also where a run before has changed the defaults and the tool has failed.
    stale = any(with_serial_console(line.options, wanted) != line.options for line in in_use)
    if (defaults := set(tree.glob(*NEXT_GRUB))) and (stale or changed & defaults):
        made = [path for path in ("/boot/grub2/grub.cfg", "/boot/grub/grub.cfg") if tree.is_file(path)]
        tools = [(tool, "-o", path) for path in made for tool in ("grub2-mkconfig", "grub-mkconfig")]
        yield from run_step(system, MADE_ANEW, ("update-grub",), *tools)
    if UPDATE_EXTLINUX in changed:
        yield from run_step(system, MADE_ANEW, ("update-extlinux",))


def with_serial_console(options: str, wanted: tuple[str, ...]) -> str:
    """Return a command line whose last console is the serial one; one that has it so already stays as it is."""
    words = options.split()
    consoles = [word for word in words if word.startswith("console=")]
    if consoles and SERIAL.match(consoles[-1]):
        return options
    words = [word for word in words if not SERIAL.match(word)]
    screen = () if any(word.startswith("console=") for word in words) else (SCREEN,)
    keys = {word.partition("=")[0] for word in words} - {"console"}
    return " ".join([*words, *screen, *(word for word in wanted if word.partition("=")[0] not in keys)])


def _texts(tree: Tree, wanted: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the files that there are, and what is to be in them."""
    for path in tree.glob(*NEXT_GRUB):
        yield path, _grub_defaults(tree.text(path) or "", wanted)
    for path in tree.glob(*SPECIFIED):
        yield path, _last_line(r"[ \t]*options[ \t]+", tree.text(path) or "", wanted)
    for path in tree.glob(*EXTLINUX):
        yield path, _each_line(r"[ \t]*append[ \t]+", tree.text(path) or "", wanted)
    if tree.is_file(UPDATE_EXTLINUX):
        yield UPDATE_EXTLINUX, _assignment(tree.text(UPDATE_EXTLINUX) or "", KERNEL_OPTIONS, wanted)
    for path in (OWN_COMMAND_LINE, VENDOR_COMMAND_LINE):
        if tree.is_file(path):
            yield OWN_COMMAND_LINE, with_serial_console((tree.text(path) or "").strip(), wanted) + "\n"
            break


def _grub_defaults(text: str, wanted: tuple[str, ...]) -> str:
    """Return a file of GRUB's defaults: the options of all entries come first, then those of ordinary ones."""
    everywhere, ordinary = _value(text, GRUB_LINUX), _value(text, GRUB_DEFAULT)
    if everywhere is None:
        return _assignment(text, GRUB_DEFAULT, wanted) if ordinary else text
    options = f"{everywhere} {ordinary or ''}"
    if with_serial_console(options, wanted) == options:
        return text
    words = (ordinary or "").split()
    consoles = [word for word in words if word.startswith("console=")]
    text = _replace_value(text, GRUB_DEFAULT, " ".join(word for word in words if word not in consoles))
    return _replace_value(text, GRUB_LINUX, with_serial_console(" ".join([everywhere, *consoles]), wanted))


def _assignment(text: str, key: str, wanted: tuple[str, ...]) -> str:
    value = _value(text, key)
    return text if value is None else _replace_value(text, key, with_serial_console(value, wanted))


def _pattern(key: str) -> re.Pattern[str]:
    """Match an assignment as a shell reads it; one of several lines, or of several quoted parts, is none."""
    return re.compile(
        rf"""^([ \t]*(?:export[ \t]+)?{key}=)(?:"([^"\\`\n]*)"|'([^'\n]*)'|([\w=.,/-]*))[ \t]*(#.*)?$""", re.MULTILINE
    )


def _value(text: str, key: str) -> str | None:
    """Return the value of the last assignment; None without one."""
    found = list(_pattern(key).finditer(text))
    return next((part for part in found[-1].group(2, 3, 4) if part is not None), "") if found else None


def _replace_value(text: str, key: str, value: str) -> str:
    found = list(_pattern(key).finditer(text))
    if not found or value == _value(text, key):
        return text
    last = found[-1]
    quote = "'" if last[3] is not None else '"'
    comment = f" {last[5]}" if last[5] else ""
    return f"{text[: last.start()]}{last[1]}{quote}{value}{quote}{comment}{text[last.end() :]}"


def _last_line(beginning: str, text: str, wanted: tuple[str, ...]) -> str:
    """Return a text of whose lines the options are one after another."""
    found = list(re.finditer(rf"^({beginning})(.*)$", text, re.MULTILINE | re.IGNORECASE))
    options = " ".join(line[2] for line in found)
    if not found or with_serial_console(options, wanted) == options:
        return text
    last = found[-1]
    return f"{text[: last.start(2)]}{with_serial_console(last[2], wanted)}{text[last.end(2) :]}"


def _each_line(beginning: str, text: str, wanted: tuple[str, ...]) -> str:
    """Return a text whose lines are of one entry each."""
    return re.sub(
        rf"^({beginning})(.*)$",
        lambda line: line[1] + with_serial_console(line[2], wanted),
        text,
        flags=re.MULTILINE | re.IGNORECASE,
    )


def _is_arm(tree: Tree) -> bool:
    for path in SHELLS:
        if tree.is_file(path):
            with tree.open(path) as file:
                return file.read(64)[ELF_MACHINE] == AARCH64
    return False
