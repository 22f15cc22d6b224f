"""Calls that may block, beside the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from minprov.deferred import deferred
from minprov.errors import ProvisioningError, Reason
from minprov.limits import LOOK_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

with deferred("aiofiles.tempfile", "aiofiles.threadpool"):
    import aiofiles.os

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *args: object, **kwargs: object) -> T:
    """Run a blocking call beside the event loop."""
    result: T = await aiofiles.os.wrap(function)(*args, **kwargs)
    return result


async def look(path: str, function: Callable[..., T], *args: object, **kwargs: object) -> T:
    """Run a look at `path`, which others may have put on a file system that hangs, beside the loop and within bounds.

    The thread is left behind where it does not come back.

    Raises:
        ProvisioningError: FILE_SYSTEM_HANGS after `LOOK_LIMIT` seconds; as the function does.

    """
    try:
        async with asyncio.timeout(LOOK_LIMIT):
            return await in_thread(function, *args, **kwargs)
    except TimeoutError as error:
        raise ProvisioningError(Reason.FILE_SYSTEM_HANGS, path=path, detail=f"no answer in {LOOK_LIMIT:g} s") from error
