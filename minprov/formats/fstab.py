"""/etc/fstab: what is mounted where (fstab(5))."""

from __future__ import annotations

import re

from minprov.definitions import NamedTuple

_ESCAPE = re.compile(r"\\([0-7]{3})")
_FIELDS = 3


class Mount(NamedTuple):
    """One line; `line` counts from 1."""

    line: int
    spec: str
    target: str
    kind: str
    options: tuple[str, ...] = ()


def parse_fstab(text: str) -> list[Mount]:
    """Return the lines that name something to mount; what has too few fields is passed over, as mount(8) does."""
    mounts = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = [_ESCAPE.sub(lambda match: chr(int(match[1], 8)), field) for field in line.split()]
        if fields and not fields[0].startswith("#") and len(fields) >= _FIELDS:
            options = tuple(fields[3].split(",")) if len(fields) > _FIELDS else ()
            mounts.append(Mount(number, fields[0], fields[1], fields[2], options))
    return mounts
