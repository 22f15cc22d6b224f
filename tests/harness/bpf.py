"""BPF programs of a control group, instruction by instruction: bpf(2), linux/bpf.h.

Imports nothing of the tests, so that a guest can have it.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

HIERARCHIES = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
SYS_BPF = {"x86_64": 321, "aarch64": 280}
BPF_PROG_LOAD, BPF_PROG_ATTACH = 5, 8
BPF_PROG_TYPE_CGROUP_SKB, BPF_PROG_TYPE_CGROUP_SOCK_ADDR = 8, 18
BPF_CGROUP_INET_INGRESS, BPF_CGROUP_INET_EGRESS, BPF_CGROUP_INET4_CONNECT = 0, 1, 10
BPF_F_ALLOW_MULTI = 2
GET_CURRENT_PID_TGID, SKB_LOAD_BYTES = 14, 26
MOVE, MOVE_REGISTER, ADD, SHIFT_RIGHT, CALL, EXIT = 0xB7, 0xBF, 0x07, 0x77, 0x85, 0x95
LOAD_WORD, STORE_WORD, AND_WORD = 0x61, 0x63, 0x54
JUMP_EQUAL, JUMP_NOT_EQUAL, JUMP_WORD_EQUAL, JUMP_WORD_NOT_EQUAL = 0x15, 0x55, 0x16, 0x56


def hierarchy() -> Path:
    """Return where control groups of version 2 are."""
    found = next((path for path in HIERARCHIES if (path / "cgroup.controllers").exists()), None)
    if found is None:
        raise FileNotFoundError("no control groups of version 2")
    return found


def instruction(operation: int, destination: int = 0, *, source: int = 0, jump: int = 0, value: int = 0) -> bytes:
    """Return one instruction."""
    return struct.pack("=BBhi", operation, source << 4 | destination, jump, value)


def attach(group: Path, kind: int, place: int, instructions: bytes, *, flags: int = 0) -> None:
    """Have the kernel run a program of a kind at a place of all processes of a control group."""
    directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    try:
        program = _load(kind, place, instructions)
        _bpf(BPF_PROG_ATTACH, struct.pack("=4I", directory, program, place, flags))
        os.close(program)
    finally:
        os.close(directory)


def _load(kind: int, place: int, instructions: bytes) -> int:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_ = ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(code), ctypes.addressof(license_)
    attributes = struct.pack("=IIQQ", kind, len(instructions) // 8, *addresses)
    return _bpf(BPF_PROG_LOAD, attributes.ljust(68, b"\0") + struct.pack("=I", place))


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, 128)
    result: int = ctypes.CDLL(None, use_errno=True).syscall(
        SYS_BPF[os.uname().machine], command, buffer, len(attributes)
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "bpf")
    return result
