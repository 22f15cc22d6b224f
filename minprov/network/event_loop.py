"""The event loop that runs the program."""

from __future__ import annotations

import logging
import socket
from typing import Any

from minprov.config import Loop
from minprov.deferred import deferred, without

# asyncio does without TLS where there is none. It uses these to show where a coroutine comes from.
with deferred("inspect", "linecache", "traceback", "asyncio.sslproto"), without("ssl"):
    import asyncio

logger = logging.getLogger(__name__)


def new_event_loop(choice: Loop) -> asyncio.AbstractEventLoop:
    """Return asyncio's own loop, or uvloop's where that was chosen and is installed."""
    if choice is not Loop.UVLOOP:
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ImportError:
        logger.warning("uvloop is not installed: asyncio's own loop is used")
        return asyncio.new_event_loop()

    class DirectLoop(uvloop.Loop):
        """Takes an address for an address: unless told that it is for a stream, uvloop starts four threads to look."""

        async def getaddrinfo(self, *address: Any, **hints: Any) -> Any:  # noqa: ANN401  # as uvloop's
            hints["type"] = hints.get("type") or socket.SOCK_STREAM
            return await super().getaddrinfo(*address, **hints)

    return DirectLoop()
