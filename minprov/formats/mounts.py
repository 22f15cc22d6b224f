"""What is mounted, and what is swapped on: proc_pid_mountinfo(5), /proc/swaps."""

import re

from minprov.definitions import NamedTuple


class Mounted(NamedTuple):
    """A mount: the device number, where, of what type, with which options, from which source."""

    device: str
    path: str
    type: str
    options: frozenset[str]
    source: str


class Swap(NamedTuple):
    """A file or device that is swapped on, its size in bytes and its priority."""

    path: str
    size: int
    priority: int


def parse_mountinfo(text: str) -> list[Mounted]:
    """Return the mounts, in the order in which they lie over each other."""
    mounts = []
    for line in text.splitlines():
        place, _, file_system = line.partition(" - ")
        _, _, device, _, path, options, *_ = place.split(" ")
        kind, source, more = [*file_system.split(" "), "", ""][:3]
        mounts.append(
            Mounted(
                device, _unescape(path), kind, frozenset((*options.split(","), *more.split(","))), _unescape(source)
            )
        )
    return mounts


def parse_swaps(text: str) -> list[Swap]:
    """Return what is swapped on; the kernel counts in KiB."""
    swaps = []
    for line in text.splitlines()[1:]:
        path, _, size, _, priority = line.split()
        swaps.append(Swap(_unescape(path), int(size) << 10, int(priority)))
    return swaps


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-3][0-7]{2})", lambda code: chr(int(code[1], 8)), text)
