"""The provisioning media, read by a process of its own: a drive may block for ever.

Reading is the first thing that a run starts, before it imports what it will need, and it imports the readers where they
are needed: so the drive is awaited, the disc read, and the password on it hashed, while the program is still being
loaded. At that time the kernel may not even know of the drive, so how long to wait for one counts from later on.
"""

from __future__ import annotations

import mmap
import time
from typing import TypeAlias

from minprov.apart import Errand
from minprov.config import Options

# The ovf-env, the hash of its password, customData if it is a file of its own, the device to eject, and where all that
# was: see `media.Media`.
Read: TypeAlias = tuple[bytes, str | None, bytes | None, str | None, str]


class Reading(Errand[Read]):
    """The search for the media that the options name, or else for a drive that has it, under way."""

    def __init__(self, options: Options, *, wait: float | None = None) -> None:
        """Start to look; `wait` is in seconds, `Options.media_wait` unless given, and counts from `end`."""
        limit = options.media_wait if wait is None else wait
        self._awaited = mmap.mmap(-1, 1)  # shared with the process that reads
        super().__init__(lambda: self._read(options.media, limit))

    async def end(self) -> Read:
        """Return what was read; from now on the wait for media that is not there counts."""
        self._awaited[0] = 1
        return await super().end()

    def _read(self, paths: tuple[str, ...], wait: float) -> Read:
        from minprov.media import Surroundings, find_media
        from minprov.ovf import parse_ovf_env
        from minprov.shacrypt import new_salt, sha512_crypt

        awaited_since: float | None = None

        def clock() -> float:
            nonlocal awaited_since
            if awaited_since is None and self._awaited[0]:
                awaited_since = time.monotonic()
            return 0.0 if awaited_since is None else time.monotonic() - awaited_since

        media = find_media(paths, wait=wait, accept=parse_ovf_env, surroundings=Surroundings(clock=clock))
        password = parse_ovf_env(media.ovf_env).password
        password_hash = sha512_crypt(password, new_salt()) if password else None
        return media.ovf_env, password_hash, media.custom_data, media.device, media.detail
