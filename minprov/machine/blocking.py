"""Calls that may block, beside the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import aiofiles.os

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *args: object, **kwargs: object) -> T:
    """Run a blocking call beside the event loop."""
    result: T = await aiofiles.os.wrap(function)(*args, **kwargs)
    return result
