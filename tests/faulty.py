"""Files and block devices with sectors that are bad or never answer: real ones, by FUSE and loop devices.

A FUSE file system may consist of nothing but its root, and the root may be a regular file: this one is mounted over a
file. Needs root. The protocol is that of linux/fuse.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import threading
from contextlib import contextmanager, suppress
from struct import Struct, pack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, INTERRUPT = 2, 3, 14, 15, 18, 25, 26, 36
DIRECT_IO = 1
MNT_FORCE, MNT_DETACH = 1, 2
_HEADER = Struct("<IIQ24x")  # length, operation, number of the request
_READ_IN = Struct("<8xQI")  # offset, size
_ATTRIBUTES = Struct("<QQQ36xIIIIIII")  # number, size, blocks, mode, links, user, group, device, block size, flags


_libc = ctypes.CDLL(None, use_errno=True)


class FaultyFile(threading.Thread):
    """Serves the file. `blocked` is set when a reader waits for what never comes."""

    def __init__(self, path: Path, device: int, data: bytes, bad: list[range], stuck: list[range]) -> None:
        super().__init__(daemon=True)
        self._path = os.fsencode(path)
        self._device = device
        self._data = data
        self._bad = bad
        self._stuck = stuck
        self.blocked = threading.Event()

    def run(self) -> None:
        while True:
            try:
                request = os.read(self._device, 1 << 17)
            except OSError:  # ENODEV: unmounted
                return
            _, operation, number = _HEADER.unpack_from(request)
            reply = self._answer(operation, request[_HEADER.size :])
            if reply is not None:
                status, body = reply
                with suppress(FileNotFoundError):  # nobody waits for it any more
                    os.write(self._device, pack("<IiQ", 16 + len(body), -status, number) + body)

    def _answer(self, operation: int, body: bytes) -> tuple[int, bytes] | None:
        if operation == INIT:
            return 0, pack("<IIIIHHII36x", 7, 31, 0, 0, 0, 0, 1 << 16, 1)
        if operation == GETATTR:
            return 0, pack("<Q8x", 1000) + _ATTRIBUTES.pack(1, len(self._data), 0, 0o100444, 1, 0, 0, 0, 512, 0)
        if operation == OPEN:
            return 0, pack("<QI4x", 0, DIRECT_IO)
        if operation in (RELEASE, FLUSH):
            return 0, b""
        if operation in (FORGET, INTERRUPT):  # these have no reply
            return None
        if operation != READ:
            return errno.ENOSYS, b""
        offset, size = _READ_IN.unpack_from(body)
        if self._touches(self._stuck, offset, size):
            self.blocked.set()
            return None
        if self._touches(self._bad, offset, size):
            return errno.EIO, b""
        return 0, self._data[offset : offset + size]

    def give_up(self) -> None:
        """End all waiting with an error."""
        _libc.umount2(self._path, MNT_FORCE)  # does so whether or not it can unmount
        _libc.umount2(self._path, MNT_DETACH)

    @staticmethod
    def _touches(ranges: list[range], offset: int, size: int) -> bool:
        return any(offset < one.stop and one.start < offset + size for one in ranges)


@contextmanager
def faulty_file(
    path: Path, data: bytes, *, bad: list[range] | None = None, stuck: list[range] | None = None
) -> Iterator[FaultyFile]:
    """Have a file that cannot be read in the `bad` ranges, and whose readers wait for ever in the `stuck` ones.

    A loop device on it that somebody waits for cannot be detached before the file gives up.
    """
    path.touch()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=100444,user_id=0,group_id=0,allow_other".encode()
    if _libc.mount(b"faulty", os.fsencode(path), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    server = FaultyFile(path, device, data, bad or [], stuck or [])
    server.start()
    try:
        yield server
    finally:
        server.give_up()
        server.join()
        os.close(device)


@contextmanager
def loop_device(path: Path) -> Iterator[str]:
    """Have a file as a block device."""
    argv = ["losetup", "--find", "--show", "--read-only", str(path)]
    device = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
