"""The event loop that runs the program."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from minprov.config import Loop

logger = logging.getLogger(__name__)


def new_event_loop(choice: Loop) -> asyncio.AbstractEventLoop:
    """Return uvloop's where it is installed and not declined, else asyncio's own."""
    if choice is Loop.ASYNCIO:
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ImportError:
        if choice is Loop.UVLOOP:
            logger.warning("uvloop is not installed: asyncio's own loop is used")
        return asyncio.new_event_loop()

    class DirectLoop(uvloop.Loop):
        """Takes an address for an address: unless told that it is for a stream, uvloop starts four threads to look."""

        async def getaddrinfo(self, *address: Any, **hints: Any) -> Any:  # noqa: ANN401  # as uvloop's
            hints["type"] = hints.get("type") or socket.SOCK_STREAM
            return await super().getaddrinfo(*address, **hints)

    return DirectLoop()
