"""What starts this system: the entries of its boot loader, their kernels, initramfs and command lines."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.boot_entries import (
    BootEntry,
    parse_extlinux,
    parse_grub,
    parse_grub_settings,
    parse_grubenv,
    parse_specified,
    starts_specified_entries,
)
from minprov.formats.grub_core import SECTION as MODULES_OF_GRUB
from minprov.formats.grub_core import parse_configurations, tar_files
from minprov.formats.pe import PeFile, parse_pe
from minprov.image.family import parse_assignments
from minprov.image.initramfs import Initramfs, read_initramfs
from minprov.image.kernels import MODULES, Kernel, release_of

if TYPE_CHECKING:
    from minprov.image.tree import Tree

_Entry = TypeVar("_Entry")
ESPS = ("/boot/efi", "/efi", "/boot")
GRUB = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", *(f"{esp}/EFI/*/grub.cfg" for esp in ESPS))
GRUB_ARCHIVES = ("/boot/flatcar/grub/grub.cfg.tar", "/boot/coreos/grub/grub.cfg.tar")
"""A copy of the disk in memory that GRUB's own program has (Flatcar's scripts: grub_install.sh)."""
GRUB_SETTINGS = ("/oem/grub.cfg", "/usr/share/oem/grub.cfg")
"""What it reads there from the OEM partition, and what then counts."""
MAX_ARCHIVE, MAX_MODULES = 1 << 20, 64 << 20
GRUB_ENVIRONMENT = ("/boot/grub/grubenv", "/boot/grub2/grubenv", "/boot/efi/EFI/*/grubenv")
SPECIFIED = tuple(f"{esp}/loader/entries/*.conf" for esp in ESPS)
EXTLINUX = (
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/boot/efi/syslinux/syslinux.cfg",
)
UNIFIED = tuple(f"{esp}/EFI/Linux/*.efi" for esp in ESPS)
FALLBACK = tuple(f"{esp}/EFI/[Bb][Oo][Oo][Tt]/[Bb][Oo][Oo][Tt]*.[Ee][Ff][Ii]" for esp in ESPS)
"""As firmware finds it: on vfat case does not count."""
SECOND = tuple(f"{esp}/EFI/*/grub{machine}.efi" for esp in ESPS for machine in ("x64", "aa64"))
"""What shim starts (its DEFAULT_LOADER)."""
NEXT_GRUB = ("/etc/default/grub", "/etc/default/grub.d/*.cfg")
NEXT_PLAIN = ("/etc/kernel/cmdline", "/usr/lib/kernel/cmdline", "/etc/cmdline.d/*.conf")
MAX_COMMAND_LINE = 1 << 16
MAX_ENTRIES = 500
"""Of one boot loader's file, and of files with one entry each: each is looked up in the tree."""


class CommandLine(NamedTuple):
    """The options of a kernel, and where they stand."""

    options: str
    file: str
    line: int | None
    is_next: bool = False
    """Not in use yet: the next entry that a tool makes has it."""

    @property
    def words(self) -> list[str]:
        """Return the options one by one."""
        return self.options.split()

    def last(self, key: str) -> str | None:
        """Return the value of the last ``key=value``."""
        values = [word.partition("=")[2] for word in self.words if word.startswith(f"{key}=")]
        return values[-1] if values else None


class Started(NamedTuple):
    """One entry, with what it names looked up in the tree."""

    entry: BootEntry
    kernel: Kernel | None
    """None if its file is not there."""
    initrds: tuple[str, ...]
    missing: tuple[str, ...]
    """Paths that it names and that lead to nothing."""
    unified: PeFile | None = None
    command_line: CommandLine | None = None


def read_started(tree: Tree) -> list[Started]:
    """Return what the boot loader offers, repairs aside, in order of precedence."""
    found = [_look_up(tree, entry) for entry in _entries(tree) if not entry.is_rescue]
    unified = _bounded(tree.glob(*UNIFIED, *FALLBACK), UNIFIED[0])
    found += [started for path in unified if (started := _unified(tree, path))]
    installed = [] if found else _bounded(tree.glob("/boot/vmlinuz-*"), "/boot")
    return found + [_installed(tree, path) for path in installed if "rescue" not in path]


def read_kernels(tree: Tree, started: list[Started]) -> list[Kernel]:
    """Return the kernels that can be started: those of the entries, or without any, those that are installed."""
    kernels = {entry.kernel.release: entry.kernel for entry in started if entry.kernel}
    if not kernels:
        releases = [name for top in MODULES for name in tree.names(top) if tree.is_directory(f"{top}/{name}")]
        for release in releases:
            has_kernel = tree.glob(f"/boot/*-{release}", f"/lib/modules/{release}/vmlinuz")
            if has_kernel or tree.is_file(f"/lib/modules/{release}/modules.dep"):
                kernels.setdefault(release, Kernel(tree, release, _image(tree, release)))
        for path in tree.glob("/boot/vmlinuz*", "/boot/Image*", "/boot/bzImage*", "/boot/kernel-*"):
            if not kernels:
                kernel = kernel_at(tree, path)
                kernels[kernel.release] = kernel
    return list(kernels.values())


def read_command_lines(tree: Tree, started: list[Started]) -> list[CommandLine]:
    """Return the command lines in use, then those that the next entry will have."""
    found = [entry.command_line for entry in started if entry.command_line]
    if not found and tree.live and (text := tree.text("/proc/cmdline")):
        found.append(CommandLine(text.strip(), "/proc/cmdline", 1))
    for path in tree.glob(*NEXT_GRUB):
        values = parse_assignments(tree.text(path) or "")
        keys = [key for key in ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT") if values.get(key)]
        if keys:
            line = next((number for number, text in tree.lines(path) if text.startswith(keys[0])), None)
            found.append(CommandLine(" ".join(values[key] for key in keys), path, line, is_next=True))
    for path in tree.glob(*NEXT_PLAIN):
        lines = tree.lines(path)
        if lines:
            found.append(CommandLine(" ".join(text for _, text in lines), path, lines[0][0], is_next=True))
    if values := parse_assignments(tree.text("/etc/update-extlinux.conf") or ""):
        found.append(
            CommandLine(values.get("default_kernel_opts", ""), "/etc/update-extlinux.conf", None, is_next=True)
        )
    return found


def read_initrds(tree: Tree, started: Started) -> list[tuple[str, Initramfs]]:
    """Return the files that an entry's kernel unpacks at its start, each with what is in it."""
    found = []
    if started.unified and (section := started.unified.sections.get(".initrd")):
        with tree.open(started.entry.file) as file:
            found.append((started.entry.file, read_initramfs(file, section.offset, section.size)))
    for path in started.initrds:
        with tree.open(path) as file:
            found.append((path, read_initramfs(file)))
    return found


def kernel_at(tree: Tree, path: str) -> Kernel:
    """Return the kernel whose image is at a path; its release comes from the image, or else from its name."""
    with tree.open(path) as file:
        release = release_of(file)
    return Kernel(tree, release or _release_from_name(tree, path), path)


def _release_from_name(tree: Tree, path: str) -> str:
    target = tree.target(path)
    if found := re.match(r".*/modules/([^/]+)/vmlinuz$", target):
        return found[1]
    name = target.rpartition("/")[2]
    installed = [name for top in MODULES for name in tree.names(top)]
    # The longest release that the name ends with; where only one is installed, it is that one.
    matching = sorted((release for release in installed if name.endswith(release)), key=len)
    if matching:
        return matching[-1]
    return installed[0] if len(set(installed)) == 1 else name.partition("-")[2] or name


def _image(tree: Tree, release: str) -> str | None:
    found = tree.glob(f"/boot/vmlinuz-{release}", f"/lib/modules/{release}/vmlinuz", f"/boot/*-{release}")
    return next((path for path in found if "init" not in path and "config" not in path and "Map" not in path), None)


def _entries(tree: Tree) -> list[BootEntry]:
    environment: dict[str, str] = {}
    for path in tree.glob(*GRUB_ENVIRONMENT):
        environment |= parse_grubenv(tree.text(path) or "")
    for path in tree.glob(*GRUB_SETTINGS):
        environment |= parse_grub_settings(tree.text(path) or "")
    entries, specified = [], tree.glob(*SPECIFIED)
    texts = {path: tree.text(path) or "" for path in tree.glob(*GRUB)} | _embedded(tree)
    for path, text in texts.items():
        found = _bounded(parse_grub(path, text, environment), path)
        # Where the priority of partitions decides which system is started, the other one may not be installed yet.
        present = [entry for entry in found if "gptprio" in text and not _look_up(tree, entry).missing]
        entries += present or found
        if kernelopts := parse_grub_settings(text).get("kernelopts"):
            environment.setdefault("kernelopts", kernelopts)
    if not texts or any(map(starts_specified_entries, texts.values())) or not entries:
        for path in _bounded(specified, SPECIFIED[0]):
            if entry := parse_specified(path, tree.text(path) or "", environment):
                entries.append(entry)
    for path in tree.glob(*EXTLINUX):
        entries += _bounded(parse_extlinux(path, tree.text(path) or ""), path)
    return entries


def _bounded(found: list[_Entry], path: str) -> list[_Entry]:
    if len(found) > MAX_ENTRIES:
        raise ProvisioningError(Reason.IMAGE_UNREADABLE, path=path, detail=f"more than {MAX_ENTRIES} entries")
    return found


def _embedded(tree: Tree) -> dict[str, str]:
    """Return the configurations in GRUB's own programs that start Linux, and not another configuration alone."""
    found = {}
    for path in tree.glob(*GRUB_ARCHIVES):
        archive = tree.read(path, MAX_ARCHIVE) or b""
        found[path] = b"\n".join(tar_files(archive, "grub.cfg")).decode(errors="replace")
    for path in tree.glob(*SECOND, *FALLBACK):
        with tree.open(path) as file:

            def read(offset: int, length: int, file: BinaryIO = file) -> bytes:
                return os.pread(file.fileno(), length, offset)

            pe = parse_pe(read)
            place = pe.sections.get(MODULES_OF_GRUB) if pe else None
            section = read(place.offset, min(place.size, MAX_MODULES)) if place else b""
        found[path] = "\n".join(parse_configurations(section))
    return {path: text for path, text in found.items() if parse_grub(path, text, {})}


def _look_up(tree: Tree, entry: BootEntry) -> Started:
    missing = []

    def place(name: str) -> str | None:
        # A loader's paths begin at the file system that holds the file, which is mounted somewhere below the root.
        directory = entry.file.rpartition("/")[0]
        places = [f"{top}/{name.lstrip('/')}" for top in ("", "/boot", "/boot/efi", "/efi", directory)]
        found = next((path for path in places if tree.is_file(path)), None)
        if found is None:
            missing.append(name)
        return found

    kernel = place(entry.kernel)
    initrds = tuple(path for path in map(place, entry.initrds) if path)
    line = CommandLine(entry.options, entry.file, entry.line)
    return Started(entry, kernel_at(tree, kernel) if kernel else None, initrds, tuple(missing), command_line=line)


def _installed(tree: Tree, path: str) -> Started:
    """Return a kernel as the entry that a boot loader would have, once there is one."""
    kernel = kernel_at(tree, path)
    names = (
        f"/boot/initrd.img-{kernel.release}",
        f"/boot/initramfs-{kernel.release}.img",
        f"/boot/initrd-{kernel.release}",
    )
    initrds = tuple(name for name in names if tree.is_file(name))
    return Started(BootEntry(path, 1, path, initrds, ""), kernel, initrds, ())


def _unified(tree: Tree, path: str) -> Started | None:
    """Return a unified kernel image (UAPI.5) as an entry; None if the file is another program."""
    with tree.open(path) as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        pe = parse_pe(read)
        if pe is None or ".linux" not in pe.sections:
            return None

        def section(name: str) -> str:
            if name not in pe.sections:
                return ""
            offset, size = pe.sections[name]
            return read(offset, min(size, MAX_COMMAND_LINE)).rstrip(b"\0\n ").decode(errors="replace")

        options, release = section(".cmdline"), section(".uname")
    if not release:
        releases = [name for top in MODULES for name in tree.names(top)]
        release = next((name for name in releases if name in path), releases[0] if releases else path)
    entry = BootEntry(path, 1, path, (), options)
    line = CommandLine(options, path, None) if options else None
    return Started(entry, Kernel(tree, release), (), (), pe, line)
