"""The image's own programs at each moment of a run, under each init that has no units to do it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.lab import USERNAME, boot, new_disk
from tests.vm.recipes import HOOKS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from tests.vm.machine import Disk
    from tests.vm.recipes import Recipe

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

OTHER_VM = {"vm-id": "0b1f4b6e-8d1c-4a35-9f5e-5f2f6f3f2a77", "hostname": "web-02"}
RAN = "/var/lib/hooks-ran"


class Boots(NamedTuple):
    """What has run by the end of each boot of one disk, and what the platform was told."""

    first: list[str]
    later: list[str]
    other: list[str]
    told: list[str]


async def _boot_all(recipe: Recipe) -> Boots:
    with new_disk(recipe) as disk:
        first, ready = await _boot(recipe, disk, "1-first", "after-ready", {})
        later, nothing = await _boot(recipe, disk, "2-later", None, {})
        other, not_ready = await _boot(recipe, disk, "3-other", "failed", OTHER_VM)
        return Boots(first, later, other, ready + nothing + not_ready)


async def _boot(
    recipe: Recipe, disk: Disk, name: str, last: str | None, vm: Mapping[str, object]
) -> tuple[list[str], list[str]]:
    """Boot until the hook of the last stage has run, which is some time after the run; a later boot has none."""
    async with boot(recipe, name=f"{recipe.name}-{name}", disk=disk, vm=vm) as guest:
        await guest.machine.shell_ready(within=300)
        told = []
        if last:
            report = await guest.platform.reported("Ready", "NotReady", within=500)
            told = [f"{report['state']} {report.get('description') or ''}"]
            await guest.ask(f"for _ in $(seq 60); do grep -q '^{last}' {RAN} && break; sleep 1; done", within=120)
        else:
            await guest.ssh_with_key("true")
        ran = (await guest.ask(f"cat {RAN}")).output.splitlines()
        await guest.machine.power_off()
    return ran, told


SEQUENCES = [on_demand(BootSequence(recipe.name, functools.partial(_boot_all, recipe))) for recipe in HOOKS]


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: sequence.name)
def test_hooks_run_before_ready_after_it_and_for_a_failure(
    sequence: BootSequence, outcomes: dict[BootSequence, Future[Boots]]
) -> None:
    boots = outcomes[sequence].result()
    assert boots.first == [f"before-ready {USERNAME} 0", 'after-ready "reported": "Ready"']
    assert boots.later == boots.first, "each runs once for a VM"
    assert boots.other[2:] == [f"before-ready {USERNAME} 1", 'failed "reason": "hook failed"']
    assert boots.told[0].startswith("Ready")
    assert boots.told[1].startswith("NotReady")
    assert "|stage=before-ready|name=10-account|status=exit status 1|" in boots.told[1]
