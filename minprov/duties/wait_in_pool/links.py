"""Changes of the machine's links, addresses and routes, as the kernel tells of them: rtnetlink(7)."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
from contextlib import suppress
from typing import Self

from minprov.network.routes import MESSAGES, RTMGRP_IPV4_ROUTE, subscribe, unsubscribe

# linux/rtnetlink.h, linux/netlink.h, linux/if.h, linux/sockios.h
RTMGRP_LINK, RTMGRP_IPV4_IFADDR = 0x1, 0x10
RTM_NEWLINK, RTM_DELLINK = 16, 17
HEADER = struct.Struct("=IHHII")
LINK = struct.Struct("=BxHiII")
IFF_LOOPBACK, IFF_RUNNING = 0x8, 0x40
SIOCGIFFLAGS, SIOCGIFADDR = 0x8913, 0x8915
IFREQ = struct.Struct("=16sH22x")


class LinkWatch:
    """Notices changes from the moment it is entered, in the event loop, to the moment it is left.

    A machine where the kernel does not tell has none.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._changed = asyncio.Event()
        self._lost = asyncio.Event()
        self._watched: set[int] = set()

    def __enter__(self) -> Self:
        self._socket = subscribe(RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE, self._notice)
        self._watched = links_in_use()  # behind the subscription: what changes from here on is told
        return self

    def __exit__(self, *_: object) -> None:
        unsubscribe(self._socket)

    @property
    def has_lost(self) -> bool:
        """Whether a link that was in use at first has lost its carrier, or is gone."""
        return self._lost.is_set()

    async def wait_for_change(self) -> None:
        """Return when something has changed since the last such wait ended."""
        await self._changed.wait()
        self._changed.clear()

    async def wait_for_loss(self) -> None:
        """Return when `has_lost`."""
        await self._lost.wait()

    def _notice(self) -> None:
        self._changed.set()
        try:
            messages = self._socket.recv(MESSAGES) if self._socket else b""
        except OSError as error:
            if error.errno == errno.ENOBUFS and not self._watched <= links_in_use():  # messages were lost
                self._lost.set()
            return
        for kind, index, flags in parse_links(messages):
            if index in self._watched and (kind == RTM_DELLINK or not flags & IFF_RUNNING):
                self._lost.set()


def parse_links(messages: bytes) -> list[tuple[int, int, int]]:
    """Return type, index and flags of each link that messages of the kernel tell of."""
    found = []
    while len(messages) >= HEADER.size:
        length, kind, *_ = HEADER.unpack_from(messages)
        if length < HEADER.size:
            break
        if kind in (RTM_NEWLINK, RTM_DELLINK) and min(length, len(messages)) >= HEADER.size + LINK.size:
            _, _, index, flags, _ = LINK.unpack_from(messages, HEADER.size)
            found.append((kind, index, flags))
        messages = messages[(length + 3) & ~3 :]
    return found


def links_in_use() -> set[int]:
    """Return the indexes of the links that have a carrier and an IPv4 address, loopback aside.

    A VF of accelerated networking, which comes and goes by itself, has no address of its own.
    """
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for index, name in socket.if_nameindex():
            request = IFREQ.pack(name.encode(), 0)
            with suppress(OSError):  # it has no address, or is gone by now
                fcntl.ioctl(probe, SIOCGIFADDR, request)
                flags = IFREQ.unpack(fcntl.ioctl(probe, SIOCGIFFLAGS, request))[1]
                if flags & IFF_RUNNING and not flags & IFF_LOOPBACK:
                    found.add(index)
    return found
