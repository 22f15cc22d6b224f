"""A VM that waagent has provisioned is deprovisioned, and what is made of its disk is provisioned by minprov."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.lab import HOSTNAME, USERNAME, boot, new_disk
from tests.vm.recipes import FROM_WAAGENT
from tests.vm.test_beside import REPORTS
from tests.vm.test_deprovision import EMPTY, files_of, identities
from tests.vm.test_guests import OTHER_VM

if TYPE_CHECKING:
    from concurrent.futures import Future

    from minprov.emulator.guest.login import Answer
    from tests.vm.lab import Guest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

IMPORT = "mkdir /etc/minprov; minprov import-waagent-conf 2>&1 >/etc/minprov/minprov.toml"
DEPROVISION = f"systemctl stop walinuxagent; userdel --force --remove {USERNAME}; minprov deprovision --yes"
LEFT = f"grep -rlE '{HOSTNAME}|{USERNAME}' /etc"


class Seen(NamedTuple):
    """What the two VMs told."""

    imported: Answer
    deprovisioned: Answer
    files: dict[str, str]
    """Of the disk between them."""
    identities: tuple[dict[str, str], dict[str, str]]
    agents: list[str]
    """Who told the platform of the second one."""
    login: Answer
    left: Answer


async def _hand_over() -> Seen:
    with new_disk(FROM_WAAGENT) as disk:
        name, append = f"{FROM_WAAGENT.name}-1-first", "systemd.mask=minprov.service"
        async with boot(FROM_WAAGENT, name=name, disk=disk, append=append) as guest:
            await _ready(guest)
            first = await identities(guest)
            imported = await guest.ask(IMPORT)
            deprovisioned = await guest.ask(DEPROVISION, within=120)
            await guest.machine.power_off()
        files = files_of(disk.path)
        async with boot(FROM_WAAGENT, name=f"{FROM_WAAGENT.name}-2-captured", disk=disk, vm=OTHER_VM) as guest:
            await _ready(guest)
            login = await guest.ssh_with_key("id -un; hostname", user=OTHER_VM["username"])
            second = await identities(guest)
            left = await guest.ask(LEFT)
            requests = [event for event in guest.platform.events if event["event"] == "request"]
            await guest.machine.power_off()
    reports = [request for request in requests if request["endpoint"] in REPORTS]
    agents = [request["headers"]["user-agent"].partition("/")[0] for request in reports]
    return Seen(imported, deprovisioned, files, (first, second), agents, login, left)


async def _ready(guest: Guest) -> None:
    await guest.platform.reported("Ready", within=500)
    await guest.machine.shell_ready(within=200)
    await guest.ask("systemctl is-system-running --wait", within=300)


HAND_OVER = on_demand(BootSequence(FROM_WAAGENT.name, _hand_over))


@pytest.fixture(scope="module", params=[HAND_OVER], ids=lambda sequence: sequence.name)
def seen(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Seen]]) -> Seen:
    return outcomes[request.param].result()


def test_its_configuration_is_taken_over(seen: Seen) -> None:
    assert seen.imported.status == 1  # what an agent that stays does is lost without it
    assert "Extensions.Enabled" in seen.imported.output


def test_its_state_is_consent_enough(seen: Seen) -> None:
    assert seen.deprovisioned.status == 0, seen.deprovisioned.output
    assert "failed:" not in seen.deprovisioned.output


def test_nothing_of_the_first_vm_is_left(seen: Seen) -> None:
    assert seen.files["/etc/machine-id"].endswith(EMPTY)
    assert not {path for path in seen.files if path.startswith(("/var/lib/waagent", "/etc/sudoers.d/waagent"))}
    for name, value in seen.identities[0].items():
        assert set(value.splitlines()).isdisjoint(seen.identities[1][name].splitlines()), name
    assert seen.left.output == ""


def test_minprov_provisions_the_next_vm(seen: Seen) -> None:
    assert seen.agents == ["minprov"]
    assert seen.login.lines == [OTHER_VM["username"], OTHER_VM["hostname"]]
