"""Changes of the machine's IPv4 routes, as the kernel tells of them: rtnetlink(7)."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Self

logger = logging.getLogger(__name__)

RTMGRP_IPV4_ROUTE = 0x40  # linux/rtnetlink.h
MESSAGES = 1 << 16  # bytes to take at once; what they say is of no interest


class RouteWatch:
    """Notices changes from the moment it is entered, in the event loop, to the moment it is left."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self.next_change = asyncio.Event()
        """Set at the first change after it was looked at."""

    def __enter__(self) -> Self:
        try:
            kinds = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_NETLINK, kinds, socket.NETLINK_ROUTE)
            self._socket.bind((0, RTMGRP_IPV4_ROUTE))
            asyncio.get_running_loop().add_reader(self._socket, self._notice)
        except OSError as error:  # a sandbox may have none; then the time between attempts is all there is
            logger.debug("changes of routes are not told of: %s", error)
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _notice(self) -> None:
        if self._socket:
            with suppress(OSError):  # messages were lost: a change as well
                self._socket.recv(MESSAGES)
        self.next_change.set()
        self.next_change = asyncio.Event()
