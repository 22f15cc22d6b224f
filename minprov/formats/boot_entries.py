"""What boot loaders start, as text: grub.cfg, Boot Loader Specification entries (UAPI.1), extlinux.conf, grubenv.

Pure: text in, entries out. A loader's language is not run: of GRUB's, variables that are set once are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from minprov.definitions import NamedTuple

_GRUB_LINUX = re.compile(r"\s*linux(?:16|efi|\$\w+)?\s+(\S+)\s*(.*)")
_GRUB_INITRD = re.compile(r"\s*initrd(?:16|efi)?\s+(.*)")
_GRUB_ENTRY = re.compile(r"""\s*menuentry\s+(?:'([^']*)'|"([^"]*)")""")
_GRUB_SET = re.compile(r"""\s*set\s+(\w+)=(?:"([^"]*)"|'([^']*)'|(\S*))""")
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_RESCUE = re.compile(r"\b(single|rescue|recovery|emergency|memtest\S*)\b", re.IGNORECASE)
_ENVIRONMENT = "# GRUB Environment Block"
MAX_OPTIONS = 1 << 13
"""Characters of a line, and of what its variables make of it: each can have another one twice. Kernels take 4096."""


class BootEntry(NamedTuple):
    """A kernel that a boot loader can start."""

    file: str
    line: int
    """Where its command line is."""
    kernel: str
    """As the loader has it: relative to the file system that it is on."""
    initrds: tuple[str, ...]
    options: str
    title: str = ""

    @property
    def is_rescue(self) -> bool:
        """Tell whether it is for repairs: a VM is not started by it."""
        return bool(_RESCUE.search(f"{self.title} {self.options} {self.kernel}"))


def parse_grubenv(text: str) -> dict[str, str]:
    """Return the variables of GRUB's environment block; none of a file that is no such block."""
    if not text.startswith(_ENVIRONMENT):
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key: value for key, sign, value in pairs if sign}


def parse_grub(file: str, text: str, environment: Mapping[str, str]) -> list[BootEntry]:
    """Return the entries of a grub.cfg that start Linux."""
    variables = dict(environment)
    entries: list[BootEntry] = []
    title = ""
    for number, line in enumerate(text.splitlines(), 1):
        if found := _GRUB_ENTRY.match(line):
            title = found[1] or found[2] or ""
        elif found := _GRUB_SET.match(line):
            variables.setdefault(found[1], _substituted(found[2] or found[3] or found[4] or "", variables))
        elif found := _GRUB_LINUX.match(line):
            options = _substituted(found[2], variables)
            entries.append(BootEntry(file, number, _path(found[1]), (), options, title))
        elif (found := _GRUB_INITRD.match(line)) and entries:
            entries[-1] = entries[-1]._replace(initrds=tuple(map(_path, found[1].split())))
    return entries


def parse_grub_settings(text: str) -> dict[str, str]:
    """Return the variables that a grub.cfg sets, each as it is set first."""
    settings: dict[str, str] = {}
    for line in text.splitlines():
        if found := _GRUB_SET.match(line):
            settings.setdefault(found[1], _substituted(found[2] or found[3] or found[4] or "", settings))
    return settings


def starts_specified_entries(text: str) -> bool:
    """Tell whether a grub.cfg reads entries of the Boot Loader Specification."""
    return re.search(r"^\s*blscfg\b", text, re.MULTILINE) is not None


def parse_specified(file: str, text: str, environment: Mapping[str, str]) -> BootEntry | None:
    """Return an entry of the Boot Loader Specification; None without a kernel."""
    kernel, title, line_of_options, options, initrds = "", "", 1, [], []
    for number, line in enumerate(text.splitlines(), 1):
        key, _, value = line.strip().partition(" ")
        value = value.strip()
        if key in ("linux", "efi"):
            kernel = value
        elif key == "initrd":
            initrds += [_path(word) for word in value.split() if not word.startswith("$")]
        elif key == "options":
            line_of_options = number
            options.append(_substituted(value, environment))
        elif key == "title":
            title = value
    if not kernel:
        return None
    return BootEntry(file, line_of_options, _path(kernel), tuple(initrds), " ".join(options), title)


def parse_extlinux(file: str, text: str) -> list[BootEntry]:
    """Return the entries of an extlinux.conf, syslinux.cfg or its like."""
    entries: list[BootEntry] = []
    title = ""
    for number, line in enumerate(text.splitlines(), 1):
        key, _, value = line.strip().partition(" ")
        value = value.strip()
        match key.upper():
            case "LABEL":
                title = value
            case "LINUX" | "KERNEL":
                entries.append(BootEntry(file, number, value, (), "", title))
            case "APPEND" if entries:
                words = value.split()
                initrds = [word.removeprefix("initrd=") for word in words if word.startswith("initrd=")]
                options = " ".join(word for word in words if not word.startswith("initrd="))
                initrds = [name for joined in initrds for name in joined.split(",")]
                last = entries[-1]
                entries[-1] = last._replace(line=number, options=options, initrds=(*last.initrds, *initrds))
            case "INITRD" if entries:
                entries[-1] = entries[-1]._replace(initrds=tuple(value.split(",")))
    return entries


def _substituted(text: str, variables: Mapping[str, str]) -> str:
    whole = _VARIABLE.sub(lambda found: variables.get(found[1], ""), text[:MAX_OPTIONS])
    return " ".join(whole[:MAX_OPTIONS].split())


def _path(word: str) -> str:
    """Return a path without the device that GRUB may name before it, as in ``($root)/vmlinuz``."""
    return re.sub(r"^\([^)]*\)", "", word.strip("\"'"))
