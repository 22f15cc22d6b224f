"""An optical drive by its device: is a disc in it, and open its tray, linux/cdrom.h.

Both block for as long as the drive takes to answer, so the caller does well to be in a process that can be left behind.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from minprov.discs.access import Lack, MediaNotFoundError, media_error, opened

CDROM_EJECT, CDROM_DRIVE_STATUS, CDROM_LOCK_DOOR = 0x5309, 0x5326, 0x5329
CDSL_CURRENT = 0x7FFFFFFF


LACKS = {1: Lack.MEDIUM, 2: Lack.MEDIUM, 3: Lack.READINESS}  # no disc, tray open, drive not ready


def holds_disc(device: str) -> bool:
    """Tell whether a disc is in a drive.

    Raises:
        ProvisioningError: MEDIA_UNREADABLE or NOT_PERMITTED, when the drive cannot be asked.

    """
    try:
        with opened(device, os.O_NONBLOCK) as descriptor:
            require_disc(device, descriptor)
    except MediaNotFoundError:
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
        if status in LACKS:
            raise MediaNotFoundError(path, LACKS[status])
