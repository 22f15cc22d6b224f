"""What this process may use of the machine: limits widened where they can be, and a failure that comes of one told.

Imported only where a limit is low or something has failed: a plain run has no use for it.
"""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress

from minprov.errors import ProvisioningError, Reason

OPEN_FILES = 32
"""As many as a run has open at its busiest, and a few more: libuv aborts the process that has none left."""
M_ARENA_MAX = -8
"""mallopt(3)."""
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
SHORTAGES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
NO_THREAD = "can't start new thread"
ALMOST = 7 / 8
"""Of a limit on memory: from there on whatever fails may have failed for it, and libraries do not say so."""


def widen_limits() -> None:
    """Have each limit be as wide as may be without privileges.

    Raises:
        ProvisioningError: NO_RESOURCES, where too few files may be open at the same time.

    """
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (hard, hard))
    if resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY:
        _use_one_arena()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= most < OPEN_FILES:
        raise ProvisioningError(Reason.NO_RESOURCES, detail=f"RLIMIT_NOFILE is {most}, {OPEN_FILES} are needed")


def _use_one_arena() -> None:
    """Keep glibc from reserving 64 MiB of address space for each thread, 128 MiB while it aligns them."""
    with suppress(ImportError, AttributeError):  # a Python without ctypes, or another libc, which has no arenas
        import ctypes

        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def find_shortage(error: BaseException | None) -> str | None:
    """Return what there was too little of, if that is what an exception comes from."""
    while error is not None:
        if isinstance(error, BaseExceptionGroup):
            return next(filter(None, map(find_shortage, error.exceptions)), None)
        if isinstance(error, MemoryError):
            return _memory_limit() or os.strerror(errno.ENOMEM)
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            return error.strerror
        if isinstance(error, RuntimeError) and str(error) == NO_THREAD:
            return _memory_limit() or NO_THREAD
        error = error.__cause__ or error.__context__
    return _memory_limit()


def _memory_limit() -> str | None:
    """Return the limit on memory that is almost reached."""
    with open("/proc/self/statm", encoding="ascii") as stream:  # proc(5)
        pages = stream.read().split()
    for name, used in (("RLIMIT_AS", pages[0]), ("RLIMIT_DATA", pages[5])):
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY and int(used) * PAGE_SIZE > limit * ALMOST:
            return f"{name} is {limit >> 20} MiB"
    return None
