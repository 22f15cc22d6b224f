"""Find the provisioning media and read what is on it.

Owns devices, image files and their faults: what is a candidate, whether a disc is in the drive, which reader fits. The
readers are pure and get nothing but ``read(offset, size)``; what the files mean is the business of the caller, who may
pass a judge that refuses a disc. A disc is read here, without the kernel's file systems and without mount(8); only one
that is mounted already is read through its mount point, and one that the readers refuse is left to the kernel.

Everything is synchronous and may block for as long as a device does, which no signal and no time-out can shorten. The
caller does well to be in a process that can be left behind.
"""

from __future__ import annotations

import os
import re
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from minprov import iso9660, udf
from minprov.cdrom import NO_DEVICE, NO_MEDIUM, NOT_READY, media_error, not_found, opened, require_disc
from minprov.errors import ProvisioningError, Reason
from minprov.volume import Contents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from minprov.volume import Read

OVF_ENV = "ovf-env.xml"
CUSTOM_DATA = "CustomData.bin"
# The platform takes at most 65535 bytes of customData, which an ovf-env carries in base64.
LIMITS = {OVF_ENV: 1 << 20, CUSTOM_DATA: 128 << 10}

# Names of drives, the likeliest first: those that waagent looks for (common/osutil/default.py).
DRIVE_NAMES = ("sr[0-9]", "hd[c-z]", "cdrom[0-9]", "cd[0-9]", "vd[b-z]")
OPTICAL_FILE_SYSTEMS = ("udf", "iso9660")
POLL_INTERVAL = 0.1

# Why media was not found, the least informative first.
NO_VOLUME = "no UDF or ISO 9660 volume"
NO_OVF_ENV = f"no {OVF_ENV}"
DETAILS = (NO_DEVICE, NO_VOLUME, NO_MEDIUM, NOT_READY, NO_OVF_ENV)

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


class Surroundings(NamedTuple):
    """Where `find_media` looks and how it waits between two looks, in seconds; tests give it others."""

    dev: str = "/dev"
    mountinfo: str = "/proc/self/mountinfo"
    pause: Callable[[float], None] = time.sleep


REAL_SURROUNDINGS = Surroundings()


def read_ovf_env(path: str) -> bytes:
    """Return the ovf-env from a device, an image file, a directory, or an ovf-env.xml itself.

    Raises:
        ProvisioningError: as `read_media`.

    """
    return read_media(path).ovf_env


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
        raise ProvisioningError(Reason.MEDIA_NOT_FOUND, path=path, detail=NO_OVF_ENV, volume=contents.volume)
    return Media(
        ovf_env=contents.files[OVF_ENV],
        custom_data=contents.files.get(CUSTOM_DATA),
        device=device,
        detail=f"{path}, {contents.volume}",
    )


def find_media(
    paths: Sequence[str],
    *,
    accept: Callable[[bytes], object] = lambda _: None,
    give_up: Callable[[], bool] = lambda: True,
    surroundings: Surroundings = REAL_SURROUNDINGS,
) -> Media:
    """Return the first media among `paths`, or among all drives where there are none, that `accept` accepts.

    Looks again for a drive or a disc to turn up until told to give up. A disc whose ovf-env makes `accept` raise
    OVF_FOREIGN is passed over. Mounted discs come first.

    Raises:
        ProvisioningError: as `read_media`, the most telling fault of all that were met; or what `accept` raised.

    """
    final: dict[str, ProvisioningError] = {}
    while True:
        faults = dict(final)
        for path, device in [(path, None) for path in paths] or _candidates(surroundings):
            if path in final:
                continue
            try:
                media = read_media(path)
            except ProvisioningError as fault:
                faults[path] = fault
                if not _may_pass(fault):
                    final[path] = fault
                continue
            try:
                accept(media.ovf_env)
            except ProvisioningError as fault:
                if fault.reason is not Reason.OVF_FOREIGN:
                    raise
                faults[path] = final[path] = fault
                continue
            return media if device is None else media._replace(device=device)
        if give_up() or (paths and final.keys() >= set(paths)):
            raise max(faults.values(), key=_weight, default=not_found(surroundings.dev, NO_DEVICE))
        surroundings.pause(POLL_INTERVAL)


def _candidates(surroundings: Surroundings) -> Iterator[tuple[str, str | None]]:
    """Yield (path, device to eject) of each mounted optical file system, then of each drive."""
    yield from _mounted(surroundings.mountinfo)
    try:
        with os.scandir(surroundings.dev) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        raise media_error(error, surroundings.dev) from error
    seen = set()
    for pattern in DRIVE_NAMES:
        for name in names:
            path = f"{surroundings.dev}/{name}"
            if re.fullmatch(pattern, name) and os.path.realpath(path) not in seen:
                seen.add(os.path.realpath(path))
                yield path, None


def _mounted(mountinfo: str) -> Iterator[tuple[str, str | None]]:
    """Yield (mount point, block device) of each mounted optical file system: proc_pid_mountinfo(5)."""
    with opened(mountinfo) as descriptor:
        lines = b"".join(iter(lambda: os.read(descriptor, 1 << 16), b"")).splitlines()
    for line in lines:
        mount, _, file_system = line.partition(b" - ")
        kind, source, *_ = file_system.split(b" ")
        if os.fsdecode(kind) in OPTICAL_FILE_SYSTEMS:
            mount_point = re.sub(rb"\\([0-3][0-7]{2})", lambda code: bytes([int(code[1], 8)]), mount.split(b" ")[4])
            yield os.fsdecode(mount_point), os.fsdecode(source) if source.startswith(b"/") else None


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
        raise not_found(path, NO_VOLUME)
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
    from minprov import kernelmount

    answers = []
    for file_system in OPTICAL_FILE_SYSTEMS:
        try:
            files = kernelmount.read_files(path, file_system, LIMITS)
        except ProvisioningError as error:
            answers.append(f"{file_system}: {error.data['error']}")
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
                    Reason.MEDIA_UNREADABLE, path=path, offset=offset + len(data), error=error.strerror
                ) from error
            if not piece:
                break
            data += piece
        return data

    return read


def _may_pass(fault: ProvisioningError) -> bool:
    """Tell whether waiting may cure a fault."""
    return fault.reason is Reason.MEDIA_UNREADABLE or fault.data.get("detail") in (NO_DEVICE, NO_MEDIUM, NOT_READY)


def _weight(fault: ProvisioningError) -> tuple[int, int]:
    """Rank faults by how near to the media they arose."""
    order = (
        Reason.MEDIA_NOT_FOUND,
        Reason.NOT_PERMITTED,
        Reason.OVF_FOREIGN,
        Reason.MEDIA_UNREADABLE,
        Reason.MEDIA_UNSUPPORTED,
        Reason.MEDIA_CORRUPT,
    )
    detail = fault.data.get("detail")
    return order.index(fault.reason), DETAILS.index(detail) if detail in DETAILS else 0
