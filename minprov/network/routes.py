"""Changes of the machine's IPv4 routes, as the kernel tells of them: rtnetlink(7)."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from minprov.limits import ROUTE_POLL

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

RTMGRP_IPV4_ROUTE = 0x40  # linux/rtnetlink.h
MESSAGES = 1 << 16  # bytes to take at once; what they say is of no interest
DISCARD_PORT = 9


class RouteWatch:
    """Notices changes from the moment it is entered, in the event loop, to the moment it is left."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._next_change = asyncio.Event()

    def __enter__(self) -> Self:
        self._socket = subscribe(RTMGRP_IPV4_ROUTE, self._notice)
        return self

    def __exit__(self, *_: object) -> None:
        unsubscribe(self._socket)

    async def wait_for_route(self, address: str, *, deadline: float) -> None:
        """Return once the kernel has a route to the address, looking again at its word alone, or at the deadline."""
        while True:
            change = self._next_change
            left = deadline - time.monotonic()
            if left <= 0 or has_route(address):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left if self._socket else min(left, ROUTE_POLL)):
                    await change.wait()

    def _notice(self) -> None:
        if self._socket:
            with suppress(OSError):  # messages were lost: a change as well
                self._socket.recv(MESSAGES)
        self._next_change.set()
        self._next_change = asyncio.Event()


def subscribe(groups: int, notice: Callable[[], None]) -> socket.socket | None:
    """Have the event loop call `notice` when the kernel tells of a change to one of the groups of rtnetlink(7).

    Return the socket to read it from; a sandbox may have none.
    """
    try:
        kinds = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        kernel = socket.socket(socket.AF_NETLINK, kinds, socket.NETLINK_ROUTE)
        kernel.bind((0, groups))
        asyncio.get_running_loop().add_reader(kernel, notice)
    except OSError as error:
        logger.debug("changes of the network are not told of: %s", error)
        return None
    return kernel


def unsubscribe(kernel: socket.socket | None) -> None:
    """Have `notice` not called any more."""
    if kernel:
        asyncio.get_running_loop().remove_reader(kernel)
        kernel.close()


def has_route(address: str) -> bool:
    """Tell whether the kernel knows a way to the address; nothing is sent. What is no IPv4 address is not looked up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            socket.inet_pton(socket.AF_INET, address)
            probe.connect((address, DISCARD_PORT))
        except OSError as error:
            return error.errno != errno.ENETUNREACH
    return True
