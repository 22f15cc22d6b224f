"""A program on a terminal, and what it writes there."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def run_on_terminal(
    argv: Sequence[str], environment: Mapping[str, str], *, columns: int = 80, stdout: bool = True
) -> tuple[int, str]:
    """Run a program whose stderr, and stdout unless that is a pipe, is a terminal; return its status and what it wrote.

    The variables that decide on colours and control characters are those of `environment` alone.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TERM"}}
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=slave if stdout else subprocess.DEVNULL,
        stderr=slave,
        env={**inherited, **environment},
    ) as process:
        os.close(slave)
        written = b""
        while piece := _read(master):
            written += piece
    os.close(master)
    return process.returncode, written.decode()


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError as error:  # how the end of a terminal is told
        if error.errno != errno.EIO:
            raise
        return b""
