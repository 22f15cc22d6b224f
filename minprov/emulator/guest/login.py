"""Logging in to a guest by SSH, from inside its network: with a key and nothing else, or with a password alone."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple

from .network import GUEST
from .tools import find_tool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .network import Network

_SSH = (
    *("ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20", "-o", "NumberOfPasswordPrompts=1"),
)
# In a guest that has just reported, sshd may not be listening yet: once a second.
_PATIENCE = ("-o", "ConnectionAttempts=120")
# For one command; software emulation takes seconds for the key exchange alone.
_LIMIT = 240
_PAUSE = 0.5
# ssh(1) exits with this if it could not log in, else as the command does.
NO_LOGIN = 255


class Answer(NamedTuple):
    """What a command in the guest wrote, both streams, and its exit status."""

    status: int
    output: str

    @property
    def lines(self) -> list[str]:
        """The output, if the command succeeded; else its end, which tells why not."""
        return self.output.splitlines() if self.status == 0 else [f"exit status {self.status}", self.output[-300:]]


class KeyPair(NamedTuple):
    """An SSH key made for guests of emulated platforms."""

    private: Path
    public: str


def make_key_pair(directory: Path) -> KeyPair:
    """Make a key pair, as two files in a directory."""
    private = directory / "key"
    command = (find_tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "emulated-platform", "-f", private)
    subprocess.run(command, check=True)
    return KeyPair(private=private, public=private.with_suffix(".pub").read_text(encoding="utf-8").strip())


class Login:
    """A way to log in: `run` takes a refusal for an answer, `succeed` does not."""

    def __init__(
        self, network: Network, user: str, options: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        find_tool("ssh")
        self._network = network
        self._options = tuple(word for option in options for word in ("-o", option))
        self._destination = f"{user}@{GUEST}"
        self._environment = environment or {}

    @classmethod
    def with_key(cls, network: Network, user: str, key: KeyPair) -> Login:
        """Return the login with a key."""
        only_key = ("PreferredAuthentications=publickey", "IdentitiesOnly=yes", f'IdentityFile="{key.private}"')
        return cls(network, user, only_key)

    @classmethod
    def with_password(cls, network: Network, user: str, password: str, directory: Path) -> Login:
        """Return the login with a password, which a program in `directory` types."""
        typist = directory / "typist"
        typist.write_text("#!/bin/sh\nprintf '%s\\n' \"$GUEST_PASSWORD\"\n", encoding="utf-8")
        typist.chmod(0o700)
        only_password = ("PreferredAuthentications=password,keyboard-interactive", "PubkeyAuthentication=no")
        typed = {"GUEST_PASSWORD": password, "SSH_ASKPASS": str(typist), "SSH_ASKPASS_REQUIRE": "force"}
        return cls(network, user, only_password, typed)

    async def run(self, command: str) -> Answer:
        """Log in as soon as the guest listens, and run a command."""
        return await self._run(*_PATIENCE, command=command)

    async def succeed(self, command: str, *, within: float) -> Answer:
        """Log in until it works, and return the answer; or the last one, if it never does within so many seconds."""
        deadline = time.monotonic() + within
        while True:
            answer = await self._run(command=command)
            if answer.status != NO_LOGIN or time.monotonic() > deadline:
                return answer
            await asyncio.sleep(_PAUSE)

    async def _run(self, *options: str, command: str) -> Answer:
        argv = (*_SSH, *self._options, *options, self._destination, command)
        try:
            return Answer(*await self._network.run(*argv, within=_LIMIT, environment=self._environment))
        except TimeoutError:
            return Answer(NO_LOGIN, f"no answer in {_LIMIT} s")
