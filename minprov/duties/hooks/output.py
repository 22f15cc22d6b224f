"""What a hook prints, kept up to a size, however much it is."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_OUTPUT = 64 << 10
CAPACITY = 64 << 10
"""Of a pipe: pipe(7)."""
CUT = b"\n[more is not kept]\n"


@contextmanager
def kept_output(log: int) -> Iterator[int]:
    """Yield a descriptor to print to, until the end of the context: then what is still there to print has no reader.

    What is kept goes to the open file at once: of a hook that hangs it is the only word.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(writer, True)
    kept = 0

    def read() -> None:
        nonlocal kept
        try:
            piece = os.read(reader, CAPACITY)
        except BlockingIOError:
            return
        if kept <= MAX_OUTPUT:
            left = MAX_OUTPUT - kept
            write(log, piece if len(piece) <= left else piece[:left] + CUT)
        kept += len(piece)

    loop = asyncio.get_running_loop()
    loop.add_reader(reader, read)
    try:
        yield writer
    finally:
        loop.remove_reader(reader)
        os.close(writer)
        read()  # what is there has room in one piece; who prints on was left running
        os.close(reader)


def write(log: int, text: bytes) -> None:
    """Write to the log as far as there is room: a hook need not fail for that."""
    try:
        os.write(log, text)
    except OSError:
        return
