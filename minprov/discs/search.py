"""Find the provisioning media: what may hold it, in what order to look, when to look again, when to give up.

What the files mean is the business of the caller, who may pass a judge that refuses a disc. A disc that is mounted
already is read through its mount point. Like `reader`, this may block for as long as a device does.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.discs.access import Lack, MediaNotFoundError, media_error, opened
from minprov.discs.reader import OPTICAL_FILE_SYSTEMS, Media, read_media
from minprov.errors import ProvisioningError, Reason
from minprov.limits import DRIVE_POLL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Names of drives, the likeliest first: those that waagent looks for (common/osutil/default.py).
DRIVE_NAMES = ("sr[0-9]", "hd[c-z]", "cdrom[0-9]", "cd[0-9]", "vd[b-z]")

# What a drive that is late, or that is still loading, may have in a moment.
LACKING_FOR_NOW = frozenset({Lack.DEVICE, Lack.MEDIUM, Lack.READINESS})


class Surroundings(NamedTuple):
    """Where `find_media` looks and how it waits between two looks, in seconds; tests give it others."""

    dev: str = "/dev"
    mountinfo: str = "/proc/self/mountinfo"
    pause: Callable[[float], None] = time.sleep


REAL_SURROUNDINGS = Surroundings()


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
                if not _is_worth_waiting(fault):
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
            raise max(faults.values(), key=_weight, default=MediaNotFoundError(surroundings.dev, Lack.DEVICE))
        surroundings.pause(DRIVE_POLL)


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


def _is_worth_waiting(fault: ProvisioningError) -> bool:
    """Tell whether waiting may cure a fault."""
    lacking = isinstance(fault, MediaNotFoundError) and fault.lack in LACKING_FOR_NOW
    return lacking or fault.reason is Reason.MEDIA_UNREADABLE


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
    return order.index(fault.reason), list(Lack).index(fault.lack) if isinstance(fault, MediaNotFoundError) else 0
