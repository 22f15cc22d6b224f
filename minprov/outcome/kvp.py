"""Hyper-V's guest-to-host pool: a few words for the host that need no network.

Owns the pool's format, its locks, and when what is in it is out of date; must not know what is told. A pool is a file
of records, each a key and a value padded with NULs. The daemon that passes them on reads the file anew whenever the
host asks: https://github.com/torvalds/linux/blob/master/tools/hv/hv_kvp_daemon.c. Sizes, locks and the rule for stale
pools are those of azure-init (doc/kvp.md) and cloud-init (reporting/handlers.py), which write to the same pool.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable

from minprov.limits import KVP_LOCK_LIMIT, KVP_LOCK_POLL

KEY_SIZE, VALUE_SIZE = 512, 2048
RECORD_SIZE = KEY_SIZE + VALUE_SIZE
MAX_RECORDS = 1024  # HV_KVP_EXCHANGE_MAX_RECORDS, linux/hyperv.h
# The kernel turns both into UTF-16 in fields of the same sizes, and an error by one takes a character more.
MAX_KEY, MAX_VALUE = 254, 1022


def put(
    pool: str, key: str, value: str, *, limit: float = KVP_LOCK_LIMIT, pause: Callable[[float], None] = time.sleep
) -> None:
    """Put a value in the pool, in the place of an earlier one with the same key, as the daemon itself would.

    A pool that was last written before this boot is emptied first: it speaks of another boot, perhaps of another VM.

    Raises:
        OSError: FileNotFoundError without a pool, TimeoutError when others keep it locked for `limit` seconds, ENOSPC
            when it is full.

    """
    record = _field(key, MAX_KEY, KEY_SIZE) + _field(value, MAX_VALUE, VALUE_SIZE)
    descriptor = os.open(pool, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _error(errno.EINVAL)
        _lock(descriptor, limit, pause)
        _put(descriptor, record)
    finally:
        os.close(descriptor)  # which gives up the locks


def _field(text: str, limit: int, size: int) -> bytes:
    """Return at most `limit` bytes of UTF-8 in whole characters: a broken one fails all that the host asks for."""
    whole = text.encode(errors="replace")[:limit].decode(errors="ignore")
    return whole.encode().ljust(size, b"\0")


def _lock(descriptor: int, limit: float, pause: Callable[[float], None]) -> None:
    """Take both kinds of lock, which know nothing of each other: the agents use flock(2), the daemon fcntl(2)."""
    deadline = time.monotonic() + limit
    for take in (fcntl.flock, fcntl.lockf):
        while True:
            try:
                take(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError) as error:
                if time.monotonic() >= deadline:
                    raise _error(errno.ETIMEDOUT) from error
            pause(KVP_LOCK_POLL)


def _put(descriptor: int, record: bytes) -> None:
    found = os.fstat(descriptor)
    if int(found.st_mtime) <= int(boot_time()):  # in whole seconds, as azure-init compares them
        os.ftruncate(descriptor, 0)
        count = 0
    else:
        count = found.st_size // RECORD_SIZE  # a torn one at the end, of a writer that was killed, is written over
    key = record[:KEY_SIZE]
    places = [place for place in range(count) if os.pread(descriptor, KEY_SIZE, place * RECORD_SIZE) == key]
    # Of several records with one key, which a writer that only appends leaves behind, the host would see any.
    for place in reversed(places[1:]):
        count -= 1
        last = os.pread(descriptor, RECORD_SIZE, count * RECORD_SIZE)
        os.pwrite(descriptor, last, place * RECORD_SIZE)
    if len(places) > 1:
        os.ftruncate(descriptor, count * RECORD_SIZE)
    place = places[0] if places else count
    if place >= MAX_RECORDS:
        raise _error(errno.ENOSPC)
    if os.pwrite(descriptor, record, place * RECORD_SIZE) < RECORD_SIZE:
        os.ftruncate(descriptor, count * RECORD_SIZE)  # whoever appends next counts on whole records
        raise _error(errno.ENOSPC)


def boot_time() -> float:
    """Return when this machine was booted, on the clock that files are stamped with."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
