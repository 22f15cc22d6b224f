"""What is read, attacked in this process: documents and discs that are one mistake away from a good one.

Each is read to a value or a ProvisioningError, in bounded time; anything else is what an attack looks for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings

from minprov.emulator.media import media_files
from minprov.emulator.vm import SAMPLE_VM
from minprov.errors import ProvisioningError
from minprov.imds import parse_instance
from minprov.ovf import parse_ovf_env
from minprov.wire import parse_goal_state
from tests.discs import fuzz_media
from tests.mutations import mutations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 1.0
"""Seconds in which anything is read."""
GOAL_STATE = b"""<?xml version="1.0" encoding="utf-8"?>
<GoalState><Version>2015-04-05</Version><Incarnation>1</Incarnation><Machine><ExpectedState>Started</ExpectedState>
</Machine><Container><ContainerId>a-b</ContainerId><RoleInstanceList><RoleInstance><InstanceId>c.d</InstanceId>
<State>Started</State></RoleInstance></RoleInstanceList></Container></GoalState>"""
INSTANCE = b"""{"compute": {"name": "web-01", "vmId": "7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14", "userData": "aGVsbG8=",
"osProfile": {"computerName": "web-01", "adminUsername": "azureuser", "disablePasswordAuthentication": "true"},
"publicKeys": [{"keyData": "ssh-ed25519 AAAA user", "path": "/home/azureuser/.ssh/authorized_keys"}],
"extended": {"compute": {"hasCustomData": "false", "ppsType": "None"}}}}"""


class Tried(NamedTuple):
    """An attack, how often it was tried, and what did not hold."""

    attack: str
    times: int
    broken: list[str]


def attack_readers(number: int, examples: int) -> Iterator[Tried]:
    """Attack each reader with so many inputs, from one seed."""
    ovf_env = media_files(SAMPLE_VM)["ovf-env.xml"]
    yield _attack("ovf-env, mutated", parse_ovf_env, [ovf_env], number, examples)
    yield _attack("goal state, mutated", parse_goal_state, [GOAL_STATE], number, examples)
    yield _attack("IMDS instance, mutated", parse_instance, [INSTANCE], number, examples)
    yield _attack("disc, mutated: UDF and ISO 9660", fuzz_media.run, fuzz_media.seeds(), number, examples)


def draw(document: bytes, number: int, examples: int) -> list[bytes]:
    """Return documents that are one mistake away from a good one, the same for the same seed."""
    drawn: list[bytes] = []

    def keep(data: bytes) -> None:
        drawn.append(data)

    limits = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seed(number)(limits(given(mutations(document))(keep)))()
    return drawn


def _attack(name: str, read: Callable[[bytes], object], documents: list[bytes], number: int, examples: int) -> Tried:
    inputs = [data for document in documents for data in draw(document, number, max(1, examples // len(documents)))]
    broken = []
    for data in inputs:
        started = time.monotonic()
        try:
            read(data)
        except ProvisioningError:
            pass
        except Exception as error:  # that there is one is what is looked for
            broken.append(f"{type(error).__name__} by {data[:80]!r}…")
        if (took := time.monotonic() - started) > LIMIT:
            broken.append(f"{took:.1f} s for {data[:80]!r}…")
    return Tried(name, len(inputs), broken)
