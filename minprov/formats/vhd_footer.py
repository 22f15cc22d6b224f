"""The footer of a VHD: 512 bytes at the end of the file, big endian.

Azure takes fixed disks only: the disk's bytes as they are, and the footer after them. A dynamic or differencing disk
has a copy of its footer at the start of the file as well. (Microsoft, Virtual Hard Disk Image Format Specification.)
"""

from __future__ import annotations

import struct

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason

SIZE = 512
COOKIE = b"conectix"
EPOCH = 946684800
"""2000-01-01 00:00 UTC in Unix time, from which the time stamp counts."""
ALIGNMENT = 1 << 20
"""Azure says otherwise: "unsupported virtual size of N bytes. The size must be a whole number (in MBs)"."""
MIN_DISK = 20 << 20
MAX_DISK = 32767 << 30
MAX_OS_DISK = 4095 << 30

FIXED = 2
TYPES = {FIXED: "fixed", 3: "dynamic", 4: "differencing"}
NO_DATA_OFFSET = 0xFFFFFFFFFFFFFFFF

_LAYOUT = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
_CHECKSUM = slice(64, 68)
_FEATURES = 2  # a reserved bit that is always set; bit 0 marks a temporary disk
_VERSION = 0x00010000
_CREATOR = b"mprv"
_CREATOR_VERSION = 0x00010000
_CREATOR_OS = b"Wi2k"  # the specification knows this one and Macintosh
# The largest geometry, whatever the size is. Readers that trust the geometry, as qemu-img does for creators that it
# does not know, then take the size from its own field (QEMU, block/vpc.c).
_GEOMETRY = (65535, 16, 255)


class Footer(NamedTuple):
    """The fields of a footer, in their order."""

    cookie: bytes
    features: int
    version: int
    data_offset: int
    time_stamp: int
    creator: bytes
    creator_version: int
    creator_os: bytes
    original_size: int
    current_size: int
    cylinders: int
    heads: int
    sectors: int
    type: int
    checksum: int
    uuid: bytes
    saved_state: int


class Violation(NamedTuple):
    """A field that is not as Azure wants it."""

    field: str
    found: str
    wanted: str


def parse_footer(data: bytes) -> Footer:
    """Return the fields of a footer, whatever their values.

    Raises:
        ProvisioningError: IMAGE_INVALID for what is no footer.

    """
    if len(data) != SIZE or not data.startswith(COOKIE):
        raise ProvisioningError(Reason.IMAGE_INVALID, detail="no VHD footer: expected cookie value 'conectix'")
    return Footer(*_LAYOUT.unpack(data))


def build_footer(size: int, *, uuid: bytes, time: int) -> bytes:
    """Return the footer of a fixed disk of `size` bytes that was made at `time`, in Unix time."""
    footer = Footer(
        cookie=COOKIE,
        features=_FEATURES,
        version=_VERSION,
        data_offset=NO_DATA_OFFSET,
        time_stamp=max(0, time - EPOCH) & 0xFFFFFFFF,
        creator=_CREATOR,
        creator_version=_CREATOR_VERSION,
        creator_os=_CREATOR_OS,
        original_size=size,
        current_size=size,
        cylinders=_GEOMETRY[0],
        heads=_GEOMETRY[1],
        sectors=_GEOMETRY[2],
        type=FIXED,
        checksum=0,
        uuid=uuid,
        saved_state=0,
    )
    return _LAYOUT.pack(*footer._replace(checksum=checksum(_LAYOUT.pack(*footer))))


def checksum(data: bytes) -> int:
    """Return a footer's checksum: the one's complement of the sum of all bytes but its own."""
    return ~(sum(data) - sum(data[_CHECKSUM])) & 0xFFFFFFFF


def aligned(size: int) -> int:
    """Return the size of the smallest disk that Azure takes and that holds `size` bytes."""
    return max(MIN_DISK, -(-size // ALIGNMENT) * ALIGNMENT)


def violations(data: bytes, file_size: int) -> list[Violation]:
    """Return every field of a VHD's footer that Azure does not take, or that contradicts the file it ends.

    Raises:
        ProvisioningError: IMAGE_INVALID for what is no footer.

    """
    footer = parse_footer(data)
    disk = file_size - SIZE
    kind = TYPES.get(footer.type, f"unknown type {footer.type}")
    rows = (
        ("features", f"{footer.features:#x}", f"{_FEATURES:#x}", footer.features == _FEATURES),
        ("version", f"{footer.version:#x}", f"{_VERSION:#x}", footer.version == _VERSION),
        ("data offset", f"{footer.data_offset:#x}", f"{NO_DATA_OFFSET:#x}", footer.data_offset == NO_DATA_OFFSET),
        ("original size", str(footer.original_size), str(disk), footer.original_size == disk),
        ("current size", str(footer.current_size), str(disk), footer.current_size == disk),
        ("disk type", kind, TYPES[FIXED], footer.type == FIXED),
        ("checksum", f"{footer.checksum:#x}", f"{checksum(data):#x}", footer.checksum == checksum(data)),
        ("saved state", str(footer.saved_state), "0", footer.saved_state == 0),
        ("size", f"{disk} bytes, no whole number of MiB", f"{aligned(disk)} bytes", disk % ALIGNMENT == 0),
        ("size", f"{disk} bytes", f"at least {MIN_DISK} bytes", disk >= MIN_DISK),
    )
    return [Violation(field, found, wanted) for field, found, wanted, holds in rows if not holds]
