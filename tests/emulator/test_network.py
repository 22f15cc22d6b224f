"""The guest's network needs name spaces and a tap; where there is no tap to be had, it is said what it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAKE = """
import asyncio, sys
from minprov.emulator.guest.network import platform_network
from minprov.errors import ProvisioningError

async def make():
    async with platform_network():
        print("it is up")

try:
    asyncio.run(make())
except ProvisioningError as error:
    sys.exit(f"{error.reason.name} {error}")
"""


@pytest.mark.root
@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this machine has no taps")
@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        ("true", "it is up\n"),
        (
            "mount --bind /dev/null /dev/net/tun",
            "hint=it takes user name spaces and an open /dev/net/tun; or try as root",
        ),
    ],
    ids=["tap", "no-tap"],
)
def test_it_is_made_or_it_is_said_what_it_takes(prepare: str, said: str) -> None:
    shell = ("unshare", "--mount", "sh", "-euc", f'{prepare}; exec "$@"', "sh")
    # A host's language is not the one in which the tools are listened to.
    environment = os.environ | {"LC_ALL": "C.UTF-8", "LANGUAGE": "de"}
    command = [*shell, sys.executable, "-c", MAKE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert said in done.stdout + done.stderr
    assert ("NOT_PERMITTED" in done.stderr) == (prepare != "true")
