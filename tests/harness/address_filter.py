"""IPAddressDeny=any and IPAddressAllow= of a unit, as systemd has them: BPF programs that a control group has.

bpf(2), linux/bpf.h. Two programs let packets to and from the given addresses pass, and no others.
"""

from __future__ import annotations

import ctypes
import os
import struct
import tempfile
from contextlib import suppress
from ipaddress import IPv4Network, ip_network
from pathlib import Path

HIERARCHIES = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
WORDS = {"localhost": "127.0.0.0/8", "link-local": "169.254.0.0/16", "any": "0.0.0.0/0"}  # systemd.resource-control(5)
SYS_BPF = {"x86_64": 321, "aarch64": 280}
BPF_PROG_LOAD, BPF_PROG_ATTACH = 5, 8
BPF_PROG_TYPE_CGROUP_SKB = 8
BPF_CGROUP_INET_INGRESS, BPF_CGROUP_INET_EGRESS = 0, 1
SKB_LOAD_BYTES = 26
MOVE, MOVE_REGISTER, ADD, CALL, EXIT = 0xB7, 0xBF, 0x07, 0x85, 0x95
LOAD_WORD, JUMP_NOT_EQUAL, JUMP_WORD_EQUAL, AND_WORD = 0x61, 0x55, 0x16, 0x54
SOURCE, DESTINATION = 12, 16  # where an IPv4 header has the addresses; one of IPv6 has none of these there


class AddressFilter:
    """A control group whose processes reach the given IPv4 addresses and networks alone."""

    def __init__(self, addresses: list[str]) -> None:
        networks = [ip_network(WORDS.get(address, address)) for address in addresses]
        allowed = [network for network in networks if isinstance(network, IPv4Network)]
        self._libc = ctypes.CDLL(None, use_errno=True)
        hierarchy = next((path for path in HIERARCHIES if (path / "cgroup.controllers").exists()), None)
        if hierarchy is None:
            raise FileNotFoundError("no control groups of version 2")
        for left_over in hierarchy.glob("minprov-tests-*"):
            # One of a harness that runs at the same time may have no process at the moment.
            if not os.path.exists(f"/proc/{left_over.name.split('-')[2]}"):
                with suppress(OSError):
                    left_over.rmdir()
        self._group = Path(tempfile.mkdtemp(prefix=f"minprov-tests-{os.getpid()}-", dir=hierarchy))
        directory = os.open(self._group, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for kind, offset in ((BPF_CGROUP_INET_INGRESS, SOURCE), (BPF_CGROUP_INET_EGRESS, DESTINATION)):
                program = self._load(_instructions(offset, allowed))
                self._bpf(BPF_PROG_ATTACH, struct.pack("=4I", directory, program, kind, 0))
                os.close(program)
        except OSError:
            self.close()
            raise
        finally:
            os.close(directory)

    def enter(self) -> None:
        """Move this process there."""
        (self._group / "cgroup.procs").write_text("0")

    def close(self) -> None:
        """Remove the control group, which has no processes any more."""
        with suppress(OSError):
            self._group.rmdir()

    def _load(self, instructions: bytes) -> int:
        code = ctypes.create_string_buffer(instructions, len(instructions))
        license_ = ctypes.create_string_buffer(b"GPL")
        addresses = ctypes.addressof(code), ctypes.addressof(license_)
        attributes = struct.pack("=IIQQ", BPF_PROG_TYPE_CGROUP_SKB, len(instructions) // 8, *addresses)
        return self._bpf(BPF_PROG_LOAD, attributes.ljust(48, b"\0"))

    def _bpf(self, command: int, attributes: bytes) -> int:
        buffer = ctypes.create_string_buffer(attributes, 128)
        result: int = self._libc.syscall(SYS_BPF[os.uname().machine], command, buffer, len(attributes))
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "bpf")
        return result


def _instructions(offset: int, networks: list[IPv4Network]) -> bytes:
    """Return a program that lets a packet pass if the address at an offset is in one of these."""
    code = [
        _instruction(MOVE, 2, value=offset),
        _instruction(MOVE_REGISTER, 3, source=10),
        _instruction(ADD, 3, value=-4),
        _instruction(MOVE, 4, value=4),
        _instruction(CALL, value=SKB_LOAD_BYTES),
        _instruction(JUMP_NOT_EQUAL, 0, jump=3 * len(networks) + 1),
        _instruction(LOAD_WORD, 1, source=10, jump=-4),
    ]
    for index, network in enumerate(networks):
        address, mask = (int.from_bytes(it.packed, "little", signed=True) for it in (network[0], network.netmask))
        code.append(_instruction(MOVE_REGISTER, 2, source=1))
        code.append(_instruction(AND_WORD, 2, value=mask))
        code.append(_instruction(JUMP_WORD_EQUAL, 2, jump=3 * (len(networks) - index - 1) + 2, value=address))
    code += [_instruction(MOVE, 0, value=0), _instruction(EXIT), _instruction(MOVE, 0, value=1), _instruction(EXIT)]
    return b"".join(code)


def _instruction(operation: int, destination: int = 0, *, source: int = 0, jump: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", operation, source << 4 | destination, jump, value)
