"""The provisioning media, read by a process of its own: a drive may block for ever.

Reading is the first thing that a run starts, before it imports what it will need, and it imports the readers where they
are needed: so the drive is awaited, the disc read, its ovf-env parsed, and the password in it hashed, while the program
is still being loaded. At that time the kernel may not even know of the drive, so how long to wait for one is said
later, when there is something to go on with in its place.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Any

from minprov.config import Options
from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.machine.child_process import ChildProcess
from minprov.model import Faults, OvfEnv, Secret, SshPublicKey


class ReadMedia(NamedTuple):
    """What was on the media, and where that was; its ovf-env is parsed, and no part of this shows in `repr`."""

    ovf: OvfEnv
    password_hash: Secret | None
    """Of the password in `ovf`."""
    redacted_ovf_env: bytes
    custom_data: bytes | None
    """Where it is a file of its own."""
    device: str | None
    """The block device to eject; None for a file or a directory."""
    detail: str
    """Such as "/dev/sr0, UDF 1.02"."""

    def __repr__(self) -> str:
        return f"ReadMedia(device={self.device!r}, detail={self.detail!r})"


class Reading(ChildProcess[tuple[Any, ...]]):
    """The search for the media that the options name, or else for a drive that has it, under way."""

    def __init__(self, options: Options) -> None:
        """Start to look, for as long as nobody calls `limit_wait`."""
        shared = mmap.mmap(-1, 8)  # with the process that reads
        self._give_up_at = memoryview(shared).cast("d")
        self._give_up_at[0] = float("inf")
        self._program = os.getpid()
        super().__init__(lambda: self._read(options))

    def limit_wait(self, seconds: float) -> None:
        """Wait for media that is not there, or cannot be read yet, so many seconds more."""
        self._give_up_at[0] = time.monotonic() + seconds

    async def media(self) -> ReadMedia:
        """Return what was read; raises as `ChildProcess.end` does."""
        fields, password_hash, *others = await self.end()
        keys = tuple(SshPublicKey(*key) for key in fields["ssh_public_keys"])
        faults = Faults(
            {name: ProvisioningError(Reason[why], **data) for name, (why, data) in fields["faults"].items()}
        )
        of_types = {"password": _secret(fields["password"]), "ssh_public_keys": keys, "faults": faults}
        ovf = OvfEnv(**(fields | of_types))
        return ReadMedia(ovf, _secret(password_hash), *others)

    def _read(self, options: Options) -> tuple[Any, ...]:
        """Be the child: read, and return the fields of `ReadMedia` as values that `marshal` knows."""
        from minprov.discs.search import find_media
        from minprov.ovf import parse_ovf_env, redact

        documents: list[OvfEnv] = []

        def accept(ovf_env: bytes) -> None:
            documents.append(parse_ovf_env(ovf_env))

        def give_up() -> bool:
            return time.monotonic() >= self._give_up_at[0] or os.getppid() != self._program

        media = find_media(options.media, accept=accept, give_up=give_up)
        ovf = documents[-1]
        password = ovf.password
        password_hash = None
        if password:
            from minprov.machine.password_hash import hash_password

            password_hash = ovf.faults.value("password", lambda: hash_password(password, options.password_method))
        keys = tuple(tuple(key) for key in ovf.ssh_public_keys)
        faults = {name: (error.reason.name, error.data) for name, error in ovf.faults.items()}
        plain = {"password": ovf.password and ovf.password.reveal(), "ssh_public_keys": keys, "faults": faults}
        fields = ovf._asdict() | plain
        return fields, password_hash, redact(media.ovf_env), media.custom_data, media.device, media.detail


def _secret(text: str | None) -> Secret | None:
    return None if text is None else Secret(text)
