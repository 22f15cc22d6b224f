"""The provisioning media, read by a process of its own: a drive may block for ever.

Reading is the first thing that a run starts, before it imports what it will need, and it imports the readers where they
are needed: so the drive is awaited, the disc read, and the password on it hashed, while the program is still being
loaded. At that time the kernel may not even know of the drive, so how long to wait for one is said later, when there is
something to go on with in its place.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import TypeAlias

from minprov.config import Options
from minprov.machine.child_process import ChildProcess

# The ovf-env, the hash of its password, customData if it is a file of its own, the device to eject, and where all that
# was: see `media.Media`.
Read: TypeAlias = tuple[bytes, str | None, bytes | None, str | None, str]


class Reading(ChildProcess[Read]):
    """The search for the media that the options name, or else for a drive that has it, under way."""

    def __init__(self, options: Options) -> None:
        """Start to look, for as long as nobody calls `limit_wait`."""
        shared = mmap.mmap(-1, 8)  # with the process that reads
        self._give_up_at = memoryview(shared).cast("d")
        self._give_up_at[0] = float("inf")
        self._program = os.getpid()
        super().__init__(lambda: self._read(options.media))

    def limit_wait(self, seconds: float) -> None:
        """Wait for media that is not there, or cannot be read yet, so many seconds more."""
        self._give_up_at[0] = time.monotonic() + seconds

    def _read(self, paths: tuple[str, ...]) -> Read:
        from minprov.discs.search import find_media
        from minprov.formats.sha_crypt import new_salt, sha512_crypt
        from minprov.ovf import parse_ovf_env

        def give_up() -> bool:
            return time.monotonic() >= self._give_up_at[0] or os.getppid() != self._program

        media = find_media(paths, accept=parse_ovf_env, give_up=give_up)
        password = parse_ovf_env(media.ovf_env).password
        password_hash = sha512_crypt(password, new_salt()) if password else None
        return media.ovf_env, password_hash, media.custom_data, media.device, media.detail
