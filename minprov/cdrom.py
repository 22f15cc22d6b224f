"""An optical drive by its device: is a disc in it, and open its tray, linux/cdrom.h.

Both block for as long as the drive takes to answer, so the caller does well to be in a process that can be left behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from minprov.errors import ProvisioningError, Reason

CDROM_EJECT, CDROM_DRIVE_STATUS, CDROM_LOCK_DOOR = 0x5309, 0x5326, 0x5329
CDSL_CURRENT = 0x7FFFFFFF

# Why there is no disc to read.
NO_DEVICE = "no device"
NO_MEDIUM = "no medium"
NOT_READY = "drive not ready"
STATUS_FAULTS = {1: NO_MEDIUM, 2: NO_MEDIUM, 3: NOT_READY}  # no disc, tray open, drive not ready

ERRNO_DETAILS = {
    errno.ENOENT: NO_DEVICE,
    errno.ENOTDIR: NO_DEVICE,
    errno.ENXIO: NO_DEVICE,
    errno.ENODEV: NO_DEVICE,
    errno.ENOMEDIUM: NO_MEDIUM,
}


def holds_disc(device: str) -> bool:
    """Tell whether a disc is in a drive.

    Raises:
        ProvisioningError: MEDIA_UNREADABLE or NOT_PERMITTED, when the drive cannot be asked.

    """
    try:
        with opened(device, os.O_NONBLOCK) as descriptor:
            require_disc(device, descriptor)
    except ProvisioningError as fault:
        if fault.reason is not Reason.MEDIA_NOT_FOUND:
            raise
        return False
    return True


def eject(device: str) -> None:
    """Open the tray of a drive.

    Raises:
        ProvisioningError: MEDIA_UNREADABLE or NOT_PERMITTED, when the drive refuses.

    """
    with opened(device, os.O_NONBLOCK) as descriptor:
        with suppress(OSError):  # what matters is whether the tray opens
            fcntl.ioctl(descriptor, CDROM_LOCK_DOOR, 0)
        try:
            fcntl.ioctl(descriptor, CDROM_EJECT)
        except OSError as error:
            raise media_error(error, device) from error


def require_disc(path: str, descriptor: int) -> None:
    """Ask an open optical drive whether a disc is in it; a device that cannot tell may have one.

    Raises:
        ProvisioningError: MEDIA_NOT_FOUND.

    """
    with suppress(OSError):
        status = fcntl.ioctl(descriptor, CDROM_DRIVE_STATUS, CDSL_CURRENT)
        if status in STATUS_FAULTS:
            raise not_found(path, STATUS_FAULTS[status])


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
