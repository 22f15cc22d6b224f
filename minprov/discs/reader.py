"""Read the provisioning media at a path: a device, an image file, a directory, or an ovf-env.xml itself.

Chooses the reader that fits. The readers are pure and get nothing but ``read(offset, size)``. A disc is read here,
without the kernel's file systems and without mount(8); one that the readers refuse is left to the kernel.

Everything is synchronous and may block for as long as a device does, which no signal and no time-out can shorten. The
caller does well to be in a process that can be left behind.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.discs import iso9660, udf
from minprov.discs.access import Lack, MediaNotFoundError, media_error, opened
from minprov.discs.drive import require_disc
from minprov.discs.volume import Contents
from minprov.errors import ProvisioningError, Reason

if TYPE_CHECKING:
    from minprov.discs.volume import Read

OVF_ENV = "ovf-env.xml"
CUSTOM_DATA = "CustomData.bin"
# The platform takes at most 65535 bytes of customData, which an ovf-env carries in base64.
LIMITS = {OVF_ENV: 1 << 20, CUSTOM_DATA: 128 << 10}

OPTICAL_FILE_SYSTEMS = ("udf", "iso9660")


# The volume recognition sequence of ECMA-167 2/8 and ECMA-119 6.7.1: from byte 32768, one structure for each sector of
# 2048 bytes or more, its standard identifier at byte 1.
RECOGNITION_START, RECOGNITION_STEP, RECOGNITION_LENGTH = 32768, 2048, 32 * 2048


class Media(NamedTuple):
    """What a disc holds, and where it was. The contents are secret and do not show in `repr`."""

    ovf_env: bytes
    custom_data: bytes | None
    device: str | None
    """The block device to eject; None for a file or a directory."""
    detail: str
    """Such as "/dev/sr0, UDF 1.02"."""

    def __repr__(self) -> str:
        return f"Media(device={self.device!r}, detail={self.detail!r})"


def read_media(path: str) -> Media:
    """Read the disc, image file or directory at a path, or an ovf-env.xml itself.

    Raises:
        ProvisioningError: MEDIA_NOT_FOUND, MEDIA_UNREADABLE, MEDIA_CORRUPT, MEDIA_UNSUPPORTED or NOT_PERMITTED.

    """
    # When asked not to block, an optical drive opens without a disc and a FIFO without a writer.
    with opened(path, os.O_NONBLOCK) as descriptor:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISBLK(mode):
            require_disc(path, descriptor)
            with opened(path) as disc:  # now the kernel looks at the disc itself, and knows its size
                try:
                    contents = _read_volume(path, disc)
                except ProvisioningError as refusal:
                    contents = _read_through_kernel(path, refusal)
            device = path
        elif stat.S_ISREG(mode):
            contents = _read_file(path, descriptor)
            device = None
        elif stat.S_ISDIR(mode):
            contents = _read_directory(path, descriptor)
            device = None
        else:
            raise ProvisioningError(Reason.MEDIA_UNSUPPORTED, path=path, feature="not a device, file or directory")
    if OVF_ENV not in contents.files:
        raise MediaNotFoundError(path, Lack.OVF_ENV, volume=contents.volume)
    return Media(
        ovf_env=contents.files[OVF_ENV],
        custom_data=contents.files.get(CUSTOM_DATA),
        device=device,
        detail=f"{path}, {contents.volume}",
    )


def _read_volume(path: str, descriptor: int) -> Contents:
    """Read the volume on a device or in an image; of a bridge the UDF side first."""
    read = _reader(path, descriptor)
    recognition = read(RECOGNITION_START, RECOGNITION_LENGTH)
    standards = {recognition[start + 1 : start + 6] for start in range(0, len(recognition), RECOGNITION_STEP)}
    readers = []
    if standards & {b"NSR02", b"NSR03"}:
        readers.append(udf.read_files)
    if b"CD001" in standards:
        readers.append(iso9660.read_files)
    if not readers:
        raise MediaNotFoundError(path, Lack.VOLUME)
    size = os.lseek(descriptor, 0, os.SEEK_END)
    faults = []
    for read_files in readers:
        try:
            contents = read_files(read, size, LIMITS)
        except ProvisioningError as fault:
            faults.append(fault)
            continue
        if OVF_ENV in contents.files:
            return contents
    if faults:
        raise ProvisioningError(faults[0].reason, **{"path": path, **faults[0].data}) from faults[0]
    return contents


def _read_through_kernel(path: str, refusal: ProvisioningError) -> Contents:
    """Read a disc that the readers refuse with the kernel's own file systems, if it has them and can."""
    if refusal.reason not in (Reason.MEDIA_UNSUPPORTED, Reason.MEDIA_CORRUPT):
        raise refusal
    from minprov.discs import kernel_mount

    answers = []
    for file_system in OPTICAL_FILE_SYSTEMS:
        try:
            files = kernel_mount.read_files(path, file_system, LIMITS)
        except ProvisioningError as error:
            answers.append(f"{file_system}: {error.data['detail']}")
        else:
            return Contents(files=files, volume=f"{file_system} by the kernel, for the reader: {refusal}")
    raise ProvisioningError(refusal.reason, **refusal.data, kernel="; ".join(answers)) from refusal


def _read_file(path: str, descriptor: int) -> Contents:
    """Read an image, or an ovf-env.xml itself: a file that begins as XML does."""
    beginning = _reader(path, descriptor)(0, 64)
    if not beginning.lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n").startswith(b"<"):
        return _read_volume(path, descriptor)
    return Contents(files={OVF_ENV: _read_whole(path, descriptor, LIMITS[OVF_ENV])}, volume="ovf-env")


def _read_directory(path: str, directory: int) -> Contents:
    files = {}
    for name, limit in LIMITS.items():
        full_path = f"{path}/{name}"
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW  # the disc may be a hostile one
            descriptor = os.open(name, flags, dir_fd=directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise media_error(error, full_path) from error
        try:
            files[name] = _read_whole(full_path, descriptor, limit)
        finally:
            os.close(descriptor)
    return Contents(files=files, volume="directory")


def _read_whole(path: str, descriptor: int, limit: int) -> bytes:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ProvisioningError(Reason.MEDIA_UNSUPPORTED, path=path, feature="not a regular file")
    data = _reader(path, descriptor)(0, limit + 1)
    if len(data) > limit:
        raise ProvisioningError(Reason.MEDIA_UNSUPPORTED, path=path, feature="a file larger than any on a disc")
    return data


def _reader(path: str, descriptor: int) -> Read:
    """Return a function that reads at an offset, and returns less only at the end."""

    def read(offset: int, size: int) -> bytes:
        data = b""
        while len(data) < size:  # before a faulty sector the kernel returns what it has, and the error to the next call
            try:
                piece = os.pread(descriptor, size - len(data), offset + len(data))
            except OSError as error:
                raise ProvisioningError(
                    Reason.MEDIA_UNREADABLE, path=path, offset=offset + len(data), detail=error.strerror
                ) from error
            if not piece:
                break
            data += piece
        return data

    return read
