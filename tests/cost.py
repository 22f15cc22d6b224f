"""What a parser may cost, whatever it is given."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError

if TYPE_CHECKING:
    from collections.abc import Callable


def cost(parse: Callable[[bytes], object], data: bytes) -> tuple[float, int]:
    """Return the processor's seconds and the bytes at the peak; one at a time, since to trace memory takes time."""
    start = time.process_time()
    with contextlib.suppress(ProvisioningError):
        parse(data)
    seconds = time.process_time() - start
    tracemalloc.start()
    with contextlib.suppress(ProvisioningError):
        parse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak
