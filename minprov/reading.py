"""The provisioning media, read by a process of its own: a drive may block for ever.

Reading is the first thing that a run starts, before it imports what it will need, and it imports the readers where they
are needed: so the drive is awaited, the disc read, and the password on it hashed, while the program is still being
loaded.
"""

from __future__ import annotations

from typing import TypeAlias

from minprov.apart import Errand
from minprov.config import Options

# The ovf-env, the hash of its password, customData if it is a file of its own, the device to eject, and where all that
# was: see `media.Media`.
Read: TypeAlias = tuple[bytes, str | None, bytes | None, str | None, str]


def start_reading(options: Options, *, wait: float | None = None) -> Errand[Read]:
    """Start to look for the media that the options name, or else in the drives, for `wait` seconds."""

    def read() -> Read:
        from minprov.media import find_media
        from minprov.ovf import parse_ovf_env
        from minprov.shacrypt import new_salt, sha512_crypt

        limit = options.media_wait if wait is None else wait
        media = find_media(options.media, wait=limit, accept=parse_ovf_env)
        password = parse_ovf_env(media.ovf_env).password
        password_hash = sha512_crypt(password, new_salt()) if password else None
        return media.ovf_env, password_hash, media.custom_data, media.device, media.detail

    return Errand(read)
