"""What is in the root directory of an NTFS volume, read without the kernel's driver.

Pure, over ``read(offset, size) -> bytes``. Structures and their names are those of ntfs-3g's include/ntfs-3g/layout.h.
The question is asked before a volume is overwritten, so what is not understood is an error and never "empty": the
update sequence of every record is checked, the tree of the directory is followed from its root, and the blocks that it
leads to must be the very ones that the directory's bitmap says are in use. Reading stops at `MAX_ENTRIES` names, which
is far more than a fresh volume has; other bounds are those of `_Volume`.
"""

import struct
from collections.abc import Callable
from struct import unpack_from
from typing import TypeAlias

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason

Read: TypeAlias = Callable[[int, int], bytes]

MAX_ENTRIES = 64
MAX_BYTES = 1 << 20
MAX_READS = 256
MAX_RECORD = 1 << 16
STRIDE = 512  # NTFS_BLOCK_SIZE: what the update sequence protects, whatever the sectors' size is

MFT, VOLUME, ROOT = 0, 3, 5
FIRST_USER_RECORD = 16  # below are the volume's own files; ntfs-3g hides them by the same rule
AT_ATTRIBUTE_LIST, AT_VOLUME_NAME, AT_DATA = 0x20, 0x60, 0x80
AT_INDEX_ROOT, AT_INDEX_ALLOCATION, AT_BITMAP = 0x90, 0xA0, 0xB0
AT_END = 0xFFFFFFFF
DIRECTORY_INDEX = "$I30"
NODE, END = 1, 2  # flags of an index entry
DOS_NAME = 2  # a second, short name of the same file
IS_DIRECTORY = 0x10000000


class Entry(NamedTuple):
    """A file or directory in the root directory."""

    name: str
    is_directory: bool
    size: int


class Directory(NamedTuple):
    """A volume's label and what its root directory holds; `complete` is false where there is more."""

    label: str
    entries: tuple[Entry, ...]
    complete: bool


class _Name(NamedTuple):
    """A name in a directory: of the file with that record, and in which of its namespaces."""

    record: int
    namespace: int
    entry: Entry


class _Run(NamedTuple):
    """Clusters of an attribute that follow one another on the volume."""

    vcn: int
    lcn: int
    length: int


class _Attribute(NamedTuple):
    """A resident attribute has a value, the others have runs."""

    value: bytes
    runs: tuple[_Run, ...]
    size: int


class _Volume:
    """The volume's bytes, with a budget of reads that a hostile one uses up."""

    def __init__(self, read: Read, size: int) -> None:
        boot = read(0, STRIDE)
        if boot[3:11] != b"NTFS    " or boot[510:512] != b"\x55\xaa":
            raise unreadable("no NTFS boot sector")
        bytes_per_sector, per_cluster = unpack_from("<HB", boot, 11)
        sectors, self.mft_lcn = unpack_from("<QQ", boot, 40)
        (record,) = unpack_from("<b", boot, 64)
        if bytes_per_sector not in (512, 1024, 2048, 4096):
            raise unreadable("sector size", bytes=bytes_per_sector)
        # From 2 MiB on it is a power of two, as the record's size is when it is negative.
        per_cluster = per_cluster if per_cluster <= 0x80 else 1 << min(256 - per_cluster, 24)
        self.cluster = bytes_per_sector * per_cluster
        self.record = record * self.cluster if record > 0 else 1 << min(-record, 24)
        if not 0 < self.cluster <= 2 << 20 or self.cluster & (self.cluster - 1):
            raise unreadable("cluster size", bytes=self.cluster)
        if not STRIDE <= self.record <= MAX_RECORD or self.record % STRIDE:
            raise unreadable("record size", bytes=self.record)
        # The last sector of the partition holds a copy of the first and is not counted.
        if not 0 < sectors * bytes_per_sector <= size:
            raise unreadable("the volume is larger than what it is on", sectors=sectors)
        self.size = sectors * bytes_per_sector
        self._read = read
        self._bytes_left = MAX_BYTES
        self._reads_left = MAX_READS

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes."""
        self._bytes_left -= size
        self._reads_left -= 1
        if self._bytes_left < 0 or self._reads_left < 0:
            raise unreadable("more structures than any real volume has, or a loop", offset=offset)
        if offset < 0 or offset + size > self.size:
            raise unreadable("a structure is outside the volume", offset=offset)
        data = self._read(offset, size)
        if len(data) != size:
            raise unreadable("the volume ends early", offset=offset)
        return data

    def read_runs(self, runs: tuple[_Run, ...], offset: int, size: int) -> bytes:
        """Return bytes of an attribute, wherever its clusters are."""
        data = b""
        while len(data) < size:
            vcn, within = divmod(offset + len(data), self.cluster)
            run = next((run for run in runs if run.vcn <= vcn < run.vcn + run.length), None)
            if run is None:
                raise unreadable("an attribute has no such cluster", vcn=vcn)
            left = (run.vcn + run.length - vcn) * self.cluster - within
            data += self.read((run.lcn + vcn - run.vcn) * self.cluster + within, min(left, size - len(data)))
        return data


def read_root_directory(read: Read, size: int) -> Directory:
    """Return what a volume of `size` bytes has in its root directory.

    Raises:
        ProvisioningError: RESOURCE_DISK_HOLDS_DATA, with what could not be understood; the files may be anything.

    """
    try:
        volume = _Volume(read, size)
        table = _attributes(volume, volume.read(volume.mft_lcn * volume.cluster, volume.record), MFT)
        files = _required(table, AT_DATA, "").runs
        label = _attributes(volume, _file(volume, files, VOLUME), VOLUME).get((AT_VOLUME_NAME, ""))
        root = _attributes(volume, _file(volume, files, ROOT), ROOT)
        entries = _entries(volume, root)
        return Directory(
            label=label.value.decode("utf-16-le") if label else "",
            entries=tuple(entries[:MAX_ENTRIES]),
            complete=len(entries) < MAX_ENTRIES,
        )
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise unreadable("a structure ends early", error=error) from error


def unreadable(fault: str, **data: object) -> ProvisioningError:
    """Build the error for a volume that is not understood."""
    return ProvisioningError(Reason.RESOURCE_DISK_HOLDS_DATA, content="ntfs", fault=fault, **data)


def _file(volume: _Volume, table: tuple[_Run, ...], number: int) -> bytes:
    return volume.read_runs(table, number * volume.record, volume.record)


def _verified(record: bytes, magic: bytes) -> bytes:
    """Return a record with the last bytes of its sectors put back, MST_RECORD; all must be from the same write."""
    offset, count = unpack_from("<HH", record, 4)
    if record[:4] != magic:
        raise unreadable(f"no {magic.decode()} record")
    if count != len(record) // STRIDE + 1 or offset + 2 * count > STRIDE - 2:
        raise unreadable("update sequence")
    number, mended = record[offset : offset + 2], bytearray(record)
    for sector in range(1, count):
        end = sector * STRIDE
        if record[end - 2 : end] != number:
            raise unreadable("a record was written in part", sector=sector)
        mended[end - 2 : end] = record[offset + 2 * sector : offset + 2 * sector + 2]
    return bytes(mended)


def _attributes(volume: _Volume, raw: bytes, number: int) -> dict[tuple[int, str], _Attribute]:
    """Return the attributes of a file by type and name."""
    record = _verified(raw, b"FILE")
    at, flags, in_use = unpack_from("<HHI", record, 20)
    if not flags & 1 or in_use > len(record):
        raise unreadable("a record of the volume is not in use", record=number)
    attributes: dict[tuple[int, str], _Attribute] = {}
    while True:
        (kind,) = unpack_from("<I", record, at)
        if kind == AT_END:
            return attributes
        length, non_resident, name_length, name_offset, flags = unpack_from("<IBBHH", record, at + 4)
        if length < 16 or at + length > in_use:
            raise unreadable("length of an attribute", record=number)
        if kind == AT_ATTRIBUTE_LIST:
            raise unreadable("a file with more than one record", record=number)
        whole = record[at : at + length]
        name = whole[name_offset : name_offset + 2 * name_length].decode("utf-16-le")
        if (kind, name) in attributes:
            raise unreadable("an attribute is there twice", record=number)
        attributes[kind, name] = _non_resident(volume, whole, flags) if non_resident else _resident(whole)
        at += length


def _resident(whole: bytes) -> _Attribute:
    size, offset = unpack_from("<IH", whole, 16)
    if offset + size > len(whole):
        raise unreadable("value of an attribute")
    return _Attribute(value=whole[offset : offset + size], runs=(), size=size)


def _non_resident(volume: _Volume, whole: bytes, flags: int) -> _Attribute:
    first, _, pairs = unpack_from("<QQH", whole, 16)
    (size,) = unpack_from("<Q", whole, 48)
    if first:
        raise unreadable("an attribute that begins elsewhere")
    if flags:  # compressed, encrypted or sparse
        return _Attribute(value=b"", runs=(), size=size)
    runs, vcn, lcn, at = [], 0, 0, pairs
    while at < len(whole) and (head := whole[at]):
        length_size, offset_size = head & 15, head >> 4
        length = int.from_bytes(whole[at + 1 : at + 1 + length_size], "little")
        at += 1 + length_size + offset_size
        if not 0 < length <= volume.size // volume.cluster or not 0 < offset_size <= 8 or at > len(whole):
            raise unreadable("run of an attribute")
        lcn += int.from_bytes(whole[at - offset_size : at], "little", signed=True)
        runs.append(_Run(vcn, lcn, length))
        vcn += length
    return _Attribute(value=b"", runs=tuple(runs), size=size)


def _required(attributes: dict[tuple[int, str], _Attribute], kind: int, name: str) -> _Attribute:
    if (kind, name) not in attributes:
        raise unreadable("an attribute is missing", type=f"{kind:#x}")
    return attributes[kind, name]


def _entries(volume: _Volume, root: dict[tuple[int, str], _Attribute]) -> list[Entry]:
    """Return the entries of a directory, in no order, the volume's own files aside."""
    index = _required(root, AT_INDEX_ROOT, DIRECTORY_INDEX).value
    (block_size,) = unpack_from("<I", index, 8)
    found: list[_Name] = []
    waiting = _node(index[16:], found)
    allocation = root.get((AT_INDEX_ALLOCATION, DIRECTORY_INDEX))
    if allocation is None:
        if waiting:
            raise unreadable("the directory leads to blocks that are not there")
        return _without_short_names(found)
    if not STRIDE <= block_size <= MAX_RECORD or block_size % STRIDE:
        raise unreadable("block size of the directory", bytes=block_size)
    # What a block is counted in: clusters, or sectors where a cluster is larger than a block.
    unit = volume.cluster if volume.cluster <= block_size else STRIDE
    seen = set()
    while waiting and len(found) < MAX_ENTRIES:
        vcn = waiting.pop()
        if vcn in seen:
            raise unreadable("the directory leads to a block twice", vcn=vcn)
        seen.add(vcn)
        if (vcn + 1) * unit > allocation.size:
            raise unreadable("the directory leads beyond its end", vcn=vcn)
        block = _verified(volume.read_runs(allocation.runs, vcn * unit, block_size), b"INDX")
        (own,) = unpack_from("<Q", block, 16)
        if own != vcn:
            raise unreadable("a block of the directory is another one", vcn=vcn)
        waiting += _node(block[24:], found)
    if not waiting and {vcn * unit // block_size for vcn in seen} != _used_blocks(volume, root, allocation, block_size):
        raise unreadable("the directory does not lead to all of its blocks")
    return _without_short_names(found)


def _without_short_names(found: list[_Name]) -> list[Entry]:
    long = {name.record for name in found if name.namespace != DOS_NAME}
    return [name.entry for name in found if name.namespace != DOS_NAME or name.record not in long]


def _node(node: bytes, found: list[_Name]) -> list[int]:
    """Add the names in a node, which is given from its INDEX_HEADER on, and return the nodes below it."""
    at, length = unpack_from("<II", node)
    if length > len(node):
        raise unreadable("length of a node")
    below: list[int] = []
    while True:
        reference, size, key_size, flags = unpack_from("<QHHH", node, at)
        if size < 16 or at + size > length:
            raise unreadable("length of an entry")
        if flags & NODE:
            below += unpack_from("<Q", node, at + size - 8)
        if flags & END:
            return below
        key = node[at + 16 : at + 16 + key_size]
        number = reference & 0xFFFFFFFFFFFF
        data_size, attributes, _, name_length, namespace = unpack_from("<QIIBB", key, 48)
        if len(key) < 66 + 2 * name_length:
            raise unreadable("length of a name")
        name = key[66 : 66 + 2 * name_length].decode("utf-16-le", errors="replace")
        if number >= FIRST_USER_RECORD:
            found.append(_Name(number, namespace, Entry(name, bool(attributes & IS_DIRECTORY), data_size)))
        at += size


def _used_blocks(
    volume: _Volume, root: dict[tuple[int, str], _Attribute], allocation: _Attribute, block_size: int
) -> set[int]:
    """Return the numbers of the directory's blocks that its bitmap says are in use."""
    bitmap = _required(root, AT_BITMAP, DIRECTORY_INDEX)
    bits = bitmap.value if not bitmap.runs else volume.read_runs(bitmap.runs, 0, min(bitmap.size, MAX_RECORD))
    blocks = min(allocation.size // block_size, 8 * len(bits))
    if allocation.size // block_size > 8 * len(bits):
        raise unreadable("the directory's bitmap is short")
    return {number for number in range(blocks) if bits[number // 8] >> number % 8 & 1}
