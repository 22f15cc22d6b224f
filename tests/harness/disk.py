"""A file that fails as a disc or a disk does: from some offset on, calls answer with EIO, or do not answer at all.

A file system of one file, served over /dev/fuse: so the error comes from the kernel, by the very call that would fail
on a scratched disc. The protocol is that of linux/fuse.h; every kernel since 5.4 speaks version 7.31.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading

from .linux import mount

FORGET, GETATTR, OPEN, READ, WRITE, RELEASE, FSYNC, FLUSH, INIT, INTERRUPT = 2, 3, 14, 15, 16, 18, 20, 25, 26, 36
VERSION = (7, 31)
MAX_WRITE = 1 << 17
FOPEN_DIRECT_IO = 1  # no read-ahead, which would meet the fault before the reader does
MODE = stat.S_IFREG | 0o644
# fuse_in_header, fuse_out_header, fuse_init_out, fuse_attr_out, fuse_open_out, the part of fuse_read_in that counts,
# fuse_write_in, which begins in the same way, and fuse_write_out
IN_HEADER, OUT_HEADER = struct.Struct("IIQQIIIHH"), struct.Struct("IiQ")
INIT_OUT, ATTR_OUT = struct.Struct("IIIIHHIIHHI28x"), struct.Struct("QII6Q3I7I")
OPEN_OUT, READ_IN = struct.Struct("QII"), struct.Struct("QQI")
WRITE_IN_SIZE, WRITE_OUT = 40, struct.Struct("II")


def mount_faulty_file(
    path: str,
    contents: bytes | bytearray,
    *,
    at: int,
    hangs: bool = False,
    operations: tuple[int, ...] = (READ, WRITE),
) -> None:
    """Mount, over an existing file, one where operations fail or hang if they touch byte `at` or one behind it.

    Only a bytearray can be written. The file is served by a thread of this process and ends with it.
    """
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    mount(
        "faulty", path, "fuse", options=f"fd={device},rootmode={MODE:o},user_id=0,group_id=0,allow_other,max_read=65536"
    )
    threading.Thread(target=_serve, args=(device, contents, at, hangs, operations), daemon=True).start()


def mount_hanging_directory(path: str) -> None:
    """Mount, over an existing directory, a file system that answers nothing, and lets go of who is killed."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode={stat.S_IFDIR | 0o755:o},user_id=0,group_id=0,allow_other"
    mount("hanging", path, "fuse", options=options)
    message = os.read(device, MAX_WRITE + 4096)  # of the kernel, INIT; what comes later is not taken
    _, _, unique, *_ = IN_HEADER.unpack_from(message)
    answer = _answer(INIT, b"", b"", 0)
    assert isinstance(answer, bytes)
    os.write(device, OUT_HEADER.pack(OUT_HEADER.size + len(answer), 0, unique) + answer)


def _serve(device: int, contents: bytes | bytearray, at: int, hangs: bool, operations: tuple[int, ...]) -> None:
    while True:
        message = os.read(device, MAX_WRITE + 4096)
        _, operation, unique, *_ = IN_HEADER.unpack_from(message)
        if operation in (FORGET, INTERRUPT):
            continue
        end = len(contents) if operation not in operations else at
        answer = _answer(operation, message[IN_HEADER.size :], contents, end)
        if not isinstance(answer, int):
            os.write(device, OUT_HEADER.pack(OUT_HEADER.size + len(answer), 0, unique) + answer)
        elif not (hangs and answer == errno.EIO):
            os.write(device, OUT_HEADER.pack(OUT_HEADER.size, -answer, unique))


def _answer(operation: int, arguments: bytes, contents: bytes | bytearray, end: int) -> bytes | int:
    """Return the reply, or the error number that is one."""
    if operation == INIT:
        return INIT_OUT.pack(*VERSION, 0, 0, 1, 1, MAX_WRITE, 1, 32, 0, 0)
    if operation == GETATTR:
        return ATTR_OUT.pack(60, 0, 0, 1, len(contents), 0, 0, 0, 0, 0, 0, 0, MODE, 1, 0, 0, 0, 512, 0)
    if operation == OPEN:
        return OPEN_OUT.pack(0, FOPEN_DIRECT_IO, 0)
    if operation in (READ, WRITE):
        _, offset, size = READ_IN.unpack_from(arguments)
        if offset + size > end:
            return errno.EIO
        if operation == READ:
            return bytes(contents[offset : offset + size])
        if isinstance(contents, bytearray):
            contents[offset : offset + size] = arguments[WRITE_IN_SIZE : WRITE_IN_SIZE + size]
            return WRITE_OUT.pack(size, 0)
        return errno.EROFS
    return b"" if operation in (RELEASE, FSYNC, FLUSH) else errno.ENOSYS
