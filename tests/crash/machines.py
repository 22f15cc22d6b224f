"""Machines for trials: some at a time, and such as outlive a power cut on a disk of their own.

A disk is an image file with a real file system, mounted by a loop device: what has reached the file when everything is
killed is what a disk would have after a power cut. To power on again is to mount a copy of it on another machine.
"""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, NoReturn, TypeVar

from tests.harness.linux import die_with_parent
from tests.harness.machine import Image, Layer, Machine, leave_this_machine

T = TypeVar("T")

AT_A_TIME = 3


class FileSystem(NamedTuple):
    """A kind of disk: how it is made, and how mounted so that it writes nothing by itself in the time of a trial.

    ext4 writes out what is renamed over another file (noauto_da_alloc says no to that), so it forgives a lack of fsync.
    """

    kind: str
    size: int
    options: str
    make: tuple[str, ...]


FILE_SYSTEMS = (
    FileSystem("ext4", 64 << 20, "commit=300,noauto_da_alloc", ("mkfs.ext4", "-q")),
    FileSystem("xfs", 320 << 20, "nouuid", ("mkfs.xfs", "-q")),
    FileSystem("btrfs", 128 << 20, "commit=300", ("mkfs.btrfs", "-q", "--mixed")),
)


class MachineOnDisk(Machine):
    """A machine whose own part of the tree is on a disk."""

    def __init__(self, image: Image, file_system: FileSystem, disk: str) -> None:
        self._file_system = file_system
        self._disk = disk
        super().__init__(image, tree=False)

    def _mount_tree(self, image: Image, place: str) -> list[Layer]:
        directory = f"{self._space}/disk"
        os.mkdir(directory)
        options = f"loop,{self._file_system.options}"
        subprocess.run(["mount", "-t", self._file_system.kind, "-o", options, self._disk, directory], check=True)
        layers = self._mount_layer(image, place, directory)
        subprocess.run(["sync", "--file-system", directory], check=True)
        return layers


def make_disk(file_system: FileSystem, path: str) -> None:
    """Make the image file of an empty disk."""
    with open(path, "xb") as file:
        file.truncate(file_system.size)
    subprocess.run([*file_system.make, path], check=True, stdout=subprocess.DEVNULL)


def copy_disk(disk: str, copy: str) -> None:
    """Copy what is on a disk at the moment, holes as holes."""
    subprocess.run(["cp", "--sparse=always", disk, copy], check=True)


def alone(work: Callable[[], T]) -> T:
    """Do a piece of work in namespaces of its own, as process 1 of them, and return what comes of it."""
    [(_, outcome)] = each_alone([work])
    return outcome


def each_alone(works: Iterable[Callable[[], T]], at_a_time: int = AT_A_TIME) -> Iterator[tuple[int, T]]:
    """Do each piece of work so, a few at a time, and yield its number and outcome as it ends."""
    waiting = list(enumerate(works))[::-1]
    running: dict[int, tuple[int, int, bytearray]] = {}
    while waiting or running:
        while waiting and len(running) < at_a_time:
            number, work = waiting.pop()
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                _serve(work, writer)
            os.close(writer)
            running[reader] = (number, child, bytearray())
        for reader in select.select(list(running), [], [])[0]:
            number, child, answer = running[reader]
            piece = os.read(reader, 1 << 16)
            answer += piece
            if piece:
                continue
            del running[reader]
            os.close(reader)
            os.waitpid(child, 0)
            outcome = pickle.loads(answer) if answer else RuntimeError("the machine ended without a word")
            if isinstance(outcome, Exception):
                raise outcome
            yield number, outcome


def _serve(work: Callable[[], object], writer: int) -> NoReturn:
    try:
        die_with_parent()
        leave_this_machine()
        if child := os.fork():
            os.close(writer)
            os.waitpid(child, 0)
            os._exit(0)
        die_with_parent()
        try:
            outcome: object = work()
        except BaseException:
            outcome = RuntimeError(traceback.format_exc())
        with open(writer, "wb") as stream:
            pickle.dump(outcome, stream)
    finally:
        os._exit(0)
