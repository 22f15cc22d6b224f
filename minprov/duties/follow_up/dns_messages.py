"""Messages of DNS (RFC 1035), as far as one question for an address takes: pure, bytes in and values out."""

from __future__ import annotations

import socket
import struct

from minprov.definitions import NamedTuple

HEADER = struct.Struct("!HHHHHH")  # 4.1.1: id, flags, and the numbers of entries in the four sections
RECORD = struct.Struct("!HHIH")  # 4.1.3, after the name: type, class, time to live, length
QUESTION_SIZE = 4
A, IN = 1, 1
RECURSION_DESIRED, RESPONSE = 0x0100, 0x8000
RCODE = 0x000F
NO_SUCH_NAME = 3
POINTER = 0xC0
LONGEST_LABEL, LONGEST_NAME = 63, 253


class Answer(NamedTuple):
    """What a server said: its response code, and the IPv4 addresses."""

    rcode: int
    addresses: tuple[str, ...]


def build_query(name: str, number: int) -> bytes | None:
    """Return a question for the IPv4 addresses of a name, or None for what is no name of DNS."""
    labels = name.encode(errors="replace").rstrip(b".").split(b".")
    if len(name) > LONGEST_NAME or not all(0 < len(label) <= LONGEST_LABEL for label in labels):
        return None
    question = b"".join(bytes([len(label)]) + label for label in labels) + struct.pack("!BHH", 0, A, IN)
    return HEADER.pack(number, RECURSION_DESIRED, 1, 0, 0, 0) + question


def parse_answer(message: bytes, number: int) -> Answer | None:
    """Return what a message answers, or None where it is no answer to this question or is damaged."""
    try:
        found, flags, questions, answers, _, _ = HEADER.unpack_from(message)
        if found != number or not flags & RESPONSE:
            return None
        at = HEADER.size
        for _ in range(questions):
            at = _behind_name(message, at) + QUESTION_SIZE
        addresses = []
        for _ in range(answers):
            at = _behind_name(message, at)
            kind, network, _, length = RECORD.unpack_from(message, at)
            at += RECORD.size
            if (kind, network, length) == (A, IN, 4):
                addresses.append(socket.inet_ntoa(message[at : at + length]))
            at += length
    except (struct.error, IndexError, OSError):
        return None
    return Answer(flags & RCODE, tuple(addresses))


def _behind_name(message: bytes, at: int) -> int:
    while (length := message[at]) != 0:
        if (
            length & POINTER == POINTER
        ):  # 4.1.4: the rest is elsewhere, and so is no concern of the place of what follows
            return at + 2
        at += length + 1
    return at + 1
