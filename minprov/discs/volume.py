"""What the readers of optical file systems share: bounded reads, and how the faults of a volume are named.

A reader is a pure function over ``read(offset, size) -> bytes`` and knows nothing of devices, paths or the kernel. It
reads through a `Disc`, which returns exactly what was asked for or raises, and which has a budget: whatever a hostile
volume makes a reader follow (extents, directories, descriptor sequences), following it runs the budget down and ends.

The readers' records are named tuples: a dataclass takes ten times as long to define, and start-up is on the boot path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from minprov.errors import ProvisioningError, Reason

Read: TypeAlias = Callable[[int, int], bytes]

# An Azure disc takes some twenty reads; these limits leave room for any honest volume and end a hostile one in time.
MAX_READS = 4096
MAX_BYTES = 2 << 20
MAX_DIRECTORY = 256 << 10


class Contents:
    """The wanted files that a volume's root directory has, by name, and what kind of volume it is.

    The files hold secrets, so there is no `repr` that shows them.
    """

    __slots__ = ("files", "volume")

    def __init__(self, files: dict[str, bytes], volume: str) -> None:
        self.files = files
        self.volume = volume


class Disc:
    """A volume's bytes, with a budget of reads."""

    __slots__ = ("_bytes_left", "_read", "_reads_left", "size")

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._reads_left = MAX_READS
        self._bytes_left = MAX_BYTES
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes."""
        if offset + length > self.size:
            raise corrupt("an extent reaches beyond the end of the disc", offset=offset, length=length, size=self.size)
        self._reads_left -= 1
        self._bytes_left -= length
        if self._reads_left < 0 or self._bytes_left < 0:
            raise corrupt("the volume has no end: more structures than any real one, or a loop", offset=offset)
        data = self._read(offset, length)
        if len(data) != length:
            raise corrupt("the disc ends early", offset=offset, length=length, got=len(data))
        return data


def corrupt(fault: str, **data: object) -> ProvisioningError:
    """Build the error for a structure that contradicts its standard."""
    return ProvisioningError(Reason.MEDIA_CORRUPT, fault=fault, **data)


def unsupported(feature: str, **data: object) -> ProvisioningError:
    """Build the error for a feature that is legal and not read here: refused by name."""
    return ProvisioningError(Reason.MEDIA_UNSUPPORTED, feature=feature, **data)
