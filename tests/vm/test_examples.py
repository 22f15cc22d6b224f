"""The ways into an image that docs/embedding.md shows: each image is made as the examples have it, and booted."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from tests.vm import recipes
from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.findings import Findings, examine
from tests.vm.lab import HOSTNAME, USERNAME, boot

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tests.vm.recipes import Recipe

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

BOOTED_AS = "journalctl --boot --output=cat --quiet SYSLOG_IDENTIFIER=systemd | grep '^Hostname set to'"


async def _boot(recipe: Recipe) -> Findings:
    async with boot(recipe, name=f"example-{recipe.name}") as guest:
        findings = await examine(guest, BOOTED_AS)
        await guest.machine.power_off()
    return findings


def _sequences(*examples: Recipe) -> list[BootSequence]:
    return [BootSequence(recipe.name, functools.partial(_boot, recipe)) for recipe in examples]


INITRAMFS = _sequences(recipes.INITRAMFS_TOOLS, recipes.DRACUT)
IMAGES = _sequences(recipes.MMDEBSTRAP, recipes.MKOSI)


@pytest.fixture(
    scope="module",
    params=[on_demand(sequence) for sequence in (*IMAGES, *INITRAMFS)],
    ids=lambda sequence: sequence.name,
)
def found(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Any]]) -> Findings:
    findings: Findings = outcomes[request.param].result()
    return findings


def test_image_made_as_shown_is_provisioned(found: Findings) -> None:
    assert found.report["state"] == "Ready"
    assert found.hostname == HOSTNAME


def test_both_ways_to_log_in_are_open(found: Findings) -> None:
    assert found.key_login.lines == [USERNAME]
    assert found.password_login.lines == [USERNAME]


@pytest.mark.parametrize(
    "sequence", [on_demand(sequence) for sequence in INITRAMFS], ids=lambda sequence: sequence.name
)
def test_system_provisioned_from_its_initramfs_never_has_another_name(
    sequence: BootSequence, outcomes: dict[BootSequence, Future[Any]]
) -> None:
    assert HOSTNAME in outcomes[sequence].result().answers[BOOTED_AS]
