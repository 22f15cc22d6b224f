"""The static form's own memcpy, memmove and memcmp, beside Python's own ways to copy and to compare."""

from __future__ import annotations

import ctypes
import random
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "packaging/static/memory.c"
NAMES = ("memcpy", "memmove", "memcmp")
LENGTH = 200


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Return the functions under names that are not the C library's."""
    library = tmp_path_factory.mktemp("memory") / "memory.so"
    renamed = [f"-D{name}=own_{name}" for name in NAMES]
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, *renamed, SOURCE, "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    for name in NAMES:
        function = getattr(loaded, f"own_{name}")  # by index it would be another one each time
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return loaded


def test_what_is_copied_is_the_same_wherever_it_overlaps(memory: ctypes.CDLL) -> None:
    contents = random.Random(30).randbytes(LENGTH)
    for size in range(LENGTH // 2):
        for distance in range(-LENGTH // 4, LENGTH // 4):
            start, to = LENGTH // 4, LENGTH // 4 + distance
            moved, copied = (ctypes.create_string_buffer(contents, LENGTH) for _ in range(2))
            memory.own_memmove(ctypes.addressof(moved) + to, ctypes.addressof(moved) + start, size)
            expected = contents[:to] + contents[start : start + size] + contents[to + size :]
            assert moved.raw == expected, (size, distance)
            memory.own_memcpy(ctypes.addressof(copied) + to, contents[start:], size)
            assert copied.raw == expected, (size, distance)


def test_the_first_difference_decides(memory: ctypes.CDLL) -> None:
    one = bytes(40)
    assert memory.own_memcmp(one, one, 0) == 0
    for size in range(1, 40):
        assert memory.own_memcmp(one, one[:size] + b"\xff", size) == 0
        for place in range(size):
            other = bytes(place) + b"\x80" + bytes([255] * size)
            assert memory.own_memcmp(one, other, size) < 0 < memory.own_memcmp(other, one, size)
