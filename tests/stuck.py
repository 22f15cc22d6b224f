"""A file system whose files cannot be had: whoever asks for one waits in the kernel, where no signal ends it.

It is a FUSE server of the test's own that answers as much as it is told to. A request that it has taken and does not
answer is as uninterruptible as a command to a drive that hangs.
"""

from __future__ import annotations

import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# linux/fuse.h
REQUEST, REPLY = struct.Struct("=IIQQIIIHH"), struct.Struct("=IiQ")
LOOKUP, GETATTR, OPEN, READ, INIT = 1, 3, 14, 15, 26
ATTRIBUTES = struct.Struct("=QQQQQQIIIIIIIIII")
FILE_NODE, SIZE = 2, 1 << 20
VALIDITY = struct.pack("=QQII", 3600, 3600, 0, 0)


class StuckFiles:
    """`path` is a file of it; `reached` is set once somebody waits for what never comes."""

    def __init__(self, directory: Path, *, opens: bool) -> None:
        self.path = directory / "disk"
        self.reached = threading.Event()
        self._answers = {INIT, LOOKUP, GETATTR, OPEN} if opens else {INIT}
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, 1 << 18)
            except OSError:  # ENODEV: unmounted
                return
            _, operation, unique, node, *_ = REQUEST.unpack_from(request)
            if operation not in self._answers:
                self.reached.set()
                continue
            body = self._answer(operation, node)
            os.write(self._device, REPLY.pack(REPLY.size + len(body), 0, unique) + body)

    def _answer(self, operation: int, node: int) -> bytes:
        if operation == INIT:
            return struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0)
        attributes = ATTRIBUTES.pack(
            node, SIZE, 0, 0, 0, 0, 0, 0, 0, 0o100644 if node != 1 else 0o40755, 1, 0, 0, 0, 4096, 0
        )
        if operation == LOOKUP:
            attributes = ATTRIBUTES.pack(FILE_NODE, SIZE, 0, 0, 0, 0, 0, 0, 0, 0o100644, 1, 0, 0, 0, 4096, 0)
            return struct.pack("=QQ", FILE_NODE, 0) + VALIDITY + attributes
        if operation == GETATTR:
            return struct.pack("=QII", 3600, 0, 0) + attributes
        return bytes(16)  # OPEN: no handle, no flags


@contextmanager
def stuck_files(directory: Path, *, opens: bool = False) -> Iterator[StuckFiles]:
    """Mount one at a directory; with `opens` a file opens and hangs when it is read, else looking it up hangs."""
    directory.mkdir()
    files = StuckFiles(directory, opens=opens)
    options = f"fd={files._device},rootmode=40000,user_id=0,group_id=0"
    subprocess.run(
        ["mount", "-i", "-t", "fuse", "-o", options, "stuck", str(directory)], pass_fds=[files._device], check=True
    )
    server = threading.Thread(target=files.serve)
    server.start()
    try:
        yield files
    finally:
        # An abort before the unmount: everyone that waits is let go with an error.
        subprocess.run(["umount", "-f", "-l", str(directory)], check=True)
        server.join()
        os.close(files._device)
