"""Open what may be or hold the provisioning media, and say what is wrong where that fails."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minprov.definitions import Enum
from minprov.errors import ProvisioningError, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator


class Lack(Enum):
    """What there is none of where no media was found, from what tells least to what tells most."""

    DEVICE = "no device"
    VOLUME = "no UDF or ISO 9660 volume"
    MEDIUM = "no medium"
    READINESS = "drive not ready"
    OVF_ENV = "no ovf-env.xml"


class MediaNotFoundError(ProvisioningError):
    """MEDIA_NOT_FOUND, with what is lacking."""

    def __init__(self, path: str, lack: Lack, **data: object) -> None:
        super().__init__(Reason.MEDIA_NOT_FOUND, path=path, detail=lack.value, **data)
        self.lack = lack


LACKS = {
    errno.ENOENT: Lack.DEVICE,
    errno.ENOTDIR: Lack.DEVICE,
    errno.ENXIO: Lack.DEVICE,
    errno.ENODEV: Lack.DEVICE,
    errno.ENOMEDIUM: Lack.MEDIUM,
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
    if error.errno in LACKS:
        return MediaNotFoundError(path, LACKS[error.errno])
    reason = Reason.NOT_PERMITTED if isinstance(error, PermissionError) else Reason.MEDIA_UNREADABLE
    return ProvisioningError(reason, path=path, detail=error.strerror)
