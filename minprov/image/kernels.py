"""The kernels of a system, and whether each has a driver: built in, as a module, or not at all.

The lists that depmod(8) and the kernel's build leave beside the modules say so; where a kernel has none of them, its
configuration does: a file beside it, or what CONFIG_IKCONFIG has put into the kernel itself.
"""

from __future__ import annotations

import re
import zlib
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, BinaryIO

from minprov.definitions import Enum
from minprov.errors import ProvisioningError, Reason
from minprov.image.initramfs import GZIP, PIECE, PROGRAMS, gunzipped, module_name, piped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.tree import Tree

MODULES = ("/lib/modules", "/usr/lib/modules")
SYMBOLS = {
    # Since Linux 6.18 HYPERV is the core alone, and HYPERV_VMBUS the bus.
    "hv_vmbus": ("HYPERV_VMBUS", "HYPERV"),
    "hv_storvsc": ("HYPERV_STORAGE",),
    "hv_netvsc": ("HYPERV_NET",),
    "hv_utils": ("HYPERV_UTILS",),
    "sr_mod": ("BLK_DEV_SR",),
    "cdrom": ("CDROM",),
    "ata_piix": ("ATA_PIIX",),
    "ata_generic": ("ATA_GENERIC",),
    "udf": ("UDF_FS",),
    "vfat": ("VFAT_FS",),
    "nvme": ("BLK_DEV_NVME",),
    "nvme_core": ("NVME_CORE",),
}
"""The options of the kernel's configuration that build a module (its Kconfig and Makefile)."""
_CONFIG_LINE = re.compile(r'^CONFIG_(\w+)=([ym]|".+")$', re.MULTILINE)
_IKCONFIG = b"IKCFG_ST"
_SETUP_SECTS, _MAGIC, _VERSION, _PAYLOAD = 0x1F1, 0x202, 0x20E, 0x248  # Documentation/arch/x86/boot.rst
MAX_KERNEL = 512 << 20
MAX_CONFIG = 4 << 20


class Driver(Enum):
    """How a kernel has a driver."""

    BUILT_IN = "built in"
    MODULE = "module"
    ABSENT = "absent"


class Kernel:
    """A kernel by its release, as uname(2) has it, and its image where there is one."""

    def __init__(self, tree: Tree, release: str, image: str | None = None) -> None:
        self._tree = tree
        self.release = release
        self.image = image
        self.modules = next((f"{top}/{release}" for top in MODULES if tree.is_directory(f"{top}/{release}")), None)

    @property
    def version(self) -> tuple[int, ...]:
        """Return the numbers that the release begins with."""
        found = re.match(r"([0-9]{1,5})\.([0-9]{1,5})(?:\.([0-9]{1,5}))?", self.release)
        return tuple(int(number) for number in found.groups() if number) if found else ()

    @property
    def evidence(self) -> str:
        """Return the file that says which drivers there are."""
        if self._has_lists:
            return f"{self.modules}/modules.dep"
        return self._config_file or self.image or self.release

    def driver(self, name: str) -> Driver:
        """Return how this kernel has a driver.

        Raises:
            ProvisioningError: IMAGE_UNREADABLE if nothing in the tree tells.

        """
        if self._has_lists:
            if name in self._lists["modules.builtin"]:
                return Driver.BUILT_IN
            return Driver.MODULE if name in self._lists["modules.dep"] else Driver.ABSENT
        values = {self.config.get(symbol) for symbol in SYMBOLS[name]}
        if "y" in values:
            return Driver.BUILT_IN
        # A module of which there is no file cannot be loaded.
        return Driver.MODULE if "m" in values and self.modules else Driver.ABSENT

    @cached_property
    def config(self) -> dict[str, str]:
        """Return the options of the kernel's configuration that are on or have a text, without ``CONFIG_``.

        Raises:
            ProvisioningError: IMAGE_UNREADABLE if it is nowhere, IMAGE_INVALID if it is damaged.

        """
        if self._config_file:
            with self._tree.open(self._config_file) as file:
                data = file.read(MAX_CONFIG)
                if data.startswith(GZIP):
                    data = b"".join(islice(gunzipped(iter([data])), MAX_CONFIG // PIECE))
        else:
            data = self._embedded_config()
        return dict(_CONFIG_LINE.findall(data.decode(errors="replace")))

    @cached_property
    def _has_lists(self) -> bool:
        # A kernel without modules has a modules.builtin only if its build installed one.
        return self.modules is not None and all(self._tree.is_file(f"{self.modules}/{name}") for name in _LISTS)

    @cached_property
    def _lists(self) -> dict[str, frozenset[str]]:
        lists = {}
        for name in _LISTS:
            text = self._tree.text(f"{self.modules}/{name}") or ""
            lists[name] = frozenset(module_name(line.partition(":")[0]) for line in text.splitlines())
        return lists

    @cached_property
    def _config_file(self) -> str | None:
        places = [f"/boot/config-{self.release}", *(f"{top}/{self.release}/config" for top in MODULES)]
        places += [f"/usr/lib/kernel/config-{self.release}"]
        return next((place for place in places if self._tree.is_file(place)), None)

    def _embedded_config(self) -> bytes:
        if self.image is None:
            detail = f"neither lists of modules nor a configuration of kernel {self.release} are there"
            raise ProvisioningError(Reason.IMAGE_UNREADABLE, detail=detail)
        with self._tree.open(self.image) as file:
            found = _find_embedded(file)
        if found is None:
            detail = f"kernel {self.release} has no lists of modules and no configuration beside it or in it"
            raise ProvisioningError(Reason.IMAGE_UNREADABLE, path=self.image, detail=detail)
        return found


_LISTS = ("modules.builtin", "modules.dep")


def release_of(file: BinaryIO) -> str | None:
    """Return the release that an x86 kernel's header names; None if it is no such kernel."""
    header = file.read(0x250)
    if header[_MAGIC : _MAGIC + 4] != b"HdrS":
        return None
    file.seek(int.from_bytes(header[_VERSION : _VERSION + 2], "little") + 0x200)
    words = file.read(256).partition(b"\0")[0].decode("ascii", "replace").split()
    return words[0] if words else None


def _find_embedded(file: BinaryIO) -> bytes | None:
    """Return the configuration in a kernel's image; None if it was built without."""
    header = file.read(0x250)
    offset = 0
    if header[_MAGIC : _MAGIC + 4] == b"HdrS":
        sectors = header[_SETUP_SECTS] or 4
        offset = (sectors + 1) * 512 + int.from_bytes(header[_PAYLOAD : _PAYLOAD + 4], "little")
    file.seek(offset)
    head = file.read(6)
    argv = next((argv for magic, argv in PROGRAMS.items() if head.startswith(magic)), None)
    if argv:
        with piped(argv, file, offset) as pieces:
            return _search(pieces)
    file.seek(offset)
    pieces = iter(lambda: file.read(1 << 20), b"")
    return _search(gunzipped(pieces) if head.startswith(GZIP) else pieces)


def _search(pieces: Iterator[bytes]) -> bytes | None:
    """Return what stands, as gzip, behind the mark in a stream."""
    kept, read = b"", 0
    for piece in pieces:
        read += len(piece)
        window = kept + piece
        place = window.find(_IKCONFIG)
        if place >= 0:
            decoder = zlib.decompressobj(wbits=31)
            try:
                data = b""
                for part in chain([window[place + len(_IKCONFIG) :]], pieces):
                    data += decoder.decompress(part, MAX_CONFIG)
                    if decoder.eof or len(data) >= MAX_CONFIG:
                        break
            except zlib.error:
                return None
            return data
        kept = window[-len(_IKCONFIG) :]
        if read > MAX_KERNEL:
            return None
    return None
