"""IPAddressDeny=any and IPAddressAllow= of a unit, as systemd has them: BPF programs that a control group has.

Two programs let packets to and from the given addresses pass, and no others.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from ipaddress import IPv4Network, ip_network
from pathlib import Path

from .bpf import (
    ADD,
    AND_WORD,
    BPF_CGROUP_INET_EGRESS,
    BPF_CGROUP_INET_INGRESS,
    BPF_PROG_TYPE_CGROUP_SKB,
    CALL,
    EXIT,
    JUMP_NOT_EQUAL,
    JUMP_WORD_EQUAL,
    LOAD_WORD,
    MOVE,
    MOVE_REGISTER,
    SKB_LOAD_BYTES,
    attach,
    hierarchy,
    instruction,
)

WORDS = {"localhost": "127.0.0.0/8", "link-local": "169.254.0.0/16", "any": "0.0.0.0/0"}  # systemd.resource-control(5)
SOURCE, DESTINATION = 12, 16  # where an IPv4 header has the addresses; one of IPv6 has none of these there


class AddressFilter:
    """A control group whose processes reach the given IPv4 addresses and networks alone."""

    def __init__(self, addresses: list[str]) -> None:
        networks = [ip_network(WORDS.get(address, address)) for address in addresses]
        allowed = [network for network in networks if isinstance(network, IPv4Network)]
        groups = hierarchy()
        for left_over in groups.glob("minprov-tests-*"):
            _remove_unused(left_over)
        self._group = Path(tempfile.mkdtemp(prefix="minprov-tests-", dir=groups))
        self._lock = os.open(self._group, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        try:
            for place, offset in ((BPF_CGROUP_INET_INGRESS, SOURCE), (BPF_CGROUP_INET_EGRESS, DESTINATION)):
                attach(self._group, BPF_PROG_TYPE_CGROUP_SKB, place, _instructions(offset, allowed))
        except OSError:
            self.close()
            raise

    def enter(self) -> None:
        """Move this process there."""
        (self._group / "cgroup.procs").write_text("0")

    def close(self) -> None:
        """Remove the control group, which has no processes any more."""
        os.close(self._lock)
        with suppress(OSError):
            self._group.rmdir()


def _remove_unused(group: Path) -> None:
    """Remove a control group, unless a harness has it that runs at the same time, perhaps in other namespaces."""
    with suppress(OSError):
        directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            group.rmdir()
        finally:
            os.close(directory)


def _instructions(offset: int, networks: list[IPv4Network]) -> bytes:
    """Return a program that lets a packet pass if the address at an offset is in one of these."""
    code = [
        instruction(MOVE, 2, value=offset),
        instruction(MOVE_REGISTER, 3, source=10),
        instruction(ADD, 3, value=-4),
        instruction(MOVE, 4, value=4),
        instruction(CALL, value=SKB_LOAD_BYTES),
        instruction(JUMP_NOT_EQUAL, 0, jump=3 * len(networks) + 1),
        instruction(LOAD_WORD, 1, source=10, jump=-4),
    ]
    for index, network in enumerate(networks):
        address, mask = (int.from_bytes(it.packed, "little", signed=True) for it in (network[0], network.netmask))
        code.append(instruction(MOVE_REGISTER, 2, source=1))
        code.append(instruction(AND_WORD, 2, value=mask))
        code.append(instruction(JUMP_WORD_EQUAL, 2, jump=3 * (len(networks) - index - 1) + 2, value=address))
    code += [instruction(MOVE, 0, value=0), instruction(EXIT), instruction(MOVE, 0, value=1), instruction(EXIT)]
    return b"".join(code)
