"""Which of the system's own programs are running.

A process calls itself what it likes, and so do its arguments: neither proves anything. One is known by the user it runs
as, in all of its four uids, and by the file that the kernel executes, which must be root's alone.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_SIZE = 1 << 17  # of a command line: more than one argument can have, MAX_ARG_STRLEN of linux/binfmts.h


class Process(NamedTuple):
    """A running program of the system's: its name, and the arguments that it was started with."""

    name: str
    argv: list[str]


def find_processes(users: Mapping[str, int]) -> Iterator[Process]:
    """Yield the running programs of these names, each if it runs as the user, by uid, that is given for its name."""
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            # It may end at any moment, and what may not be seen is not believed.
            with suppress(OSError):
                # As a directory, so that what is read is of one process, even if its number is given to another.
                directory = os.open(f"/proc/{entry}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    if process := _known_process(directory, users):
                        yield process
                finally:
                    os.close(directory)


def _known_process(directory: int, users: Mapping[str, int]) -> Process | None:
    name = os.path.basename(os.readlink("exe", dir_fd=directory))
    if name not in users:
        return None
    program = os.stat("exe", dir_fd=directory)
    if program.st_uid != 0 or stat.S_IMODE(program.st_mode) & 0o022:
        return None
    lines = _read(directory, "status").splitlines()
    uids = next(line.split()[1:] for line in lines if line.startswith(b"Uid:"))  # proc_pid_status(5)
    if {int(uid) for uid in uids} != {users[name]}:
        return None
    return Process(name, os.fsdecode(_read(directory, "cmdline")).rstrip("\0").split("\0"))


def _read(directory: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(descriptor, MAX_SIZE)
    finally:
        os.close(descriptor)
