"""Open what may be or hold the provisioning media, and say what is wrong where that fails."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

# Why there is no disc to read.
NO_DEVICE = "no device"
NO_MEDIUM = "no medium"
NOT_READY = "drive not ready"

ERRNO_DETAILS = {
    errno.ENOENT: NO_DEVICE,
    errno.ENOTDIR: NO_DEVICE,
    errno.ENXIO: NO_DEVICE,
    errno.ENODEV: NO_DEVICE,
    errno.ENOMEDIUM: NO_MEDIUM,
}


@contextmanager
def opened(path: str, flags: int = 0) -> Iterator[int]:
    """Open a device, file or directory for reading.

    Raises:
        ProvisioningError: MEDIA_NOT_FOUND, MEDIA_UNREADABLE or NOT_PERMITTED.

    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except OSError as error:
        raise media_error(error, path) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def media_error(error: OSError, path: str) -> ProvisioningError:
    """Translate an operating system error on media or on the drive that should have it."""
    if error.errno in ERRNO_DETAILS:
        return not_found(path, ERRNO_DETAILS[error.errno])
    reason = Reason.NOT_PERMITTED if isinstance(error, PermissionError) else Reason.MEDIA_UNREADABLE
    return ProvisioningError(reason, path=path, error=error.strerror)


def not_found(path: str, detail: str) -> ProvisioningError:
    """Build the error for media that is not there."""
    return ProvisioningError(Reason.MEDIA_NOT_FOUND, path=path, detail=detail)
