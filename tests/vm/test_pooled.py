"""A pooled VM in a guest: systemd lets minprov.service wait, networkd brings the network back, the kernel tells of it.

What the platform does to the NIC is done by QEMU: its link goes down and up.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from minprov.emulator.guest.machine import firmware_uuid
from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.findings import STATE
from tests.vm.lab import USERNAME, VM_ID, boot, new_disk
from tests.vm.recipes import POOLED

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tests.vm.lab import Guest
    from tests.vm.machine import Disk

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

UNIT = "systemctl show minprov.service --property=ActiveState,TimeoutStartUSec"
SSHD = "systemctl is-active ssh.service"
ACCOUNT = f"getent passwd {USERNAME}"
HOST_KEYS = "ls /etc/ssh | grep --count host_key"
OUTCOME = f'python3 -c \'import json; print(json.load(open("{STATE}/report.json"))["outcome"])\''
NOBODY = "[[reprovisiondata]]\ntimes = 'forever'\n"
OWNER = """
[[reprovisiondata]]
times = 40

[[reprovisiondata]]
change = { reprovisioned = true, preprovisioned-vm = false, preprovisioned-vm-type = "None", hostname = "owned-01" }
"""


class Look(NamedTuple):
    """What was seen of a VM that waited: in the pool, after a reboot there, and once its owner had come."""

    waiting: dict[str, str]
    reports: list[str]
    """All health reports, of each boot behind the other."""
    markers: dict[str, bool]
    """Which there were when the VM was rebooted."""
    login: str
    result: dict[str, Any]


def _reports(guest: Guest) -> list[str]:
    return [event["state"] for event in guest.platform.events if event["event"] == "health"]


def _markers(disk: Disk) -> dict[str, bool]:
    return {name: disk.exists(f"{STATE}/{name}/{firmware_uuid(VM_ID)}") for name in ("pool", "applied", "ready")}


async def _play() -> Look:
    vm = {"preprovisioned-vm": True, "preprovisioned-vm-type": "Running", "hostname": "pool-0815"}
    with new_disk(POOLED) as disk:
        async with boot(POOLED, name="pooled-1", disk=disk, vm=vm, faults=NOBODY) as guest:
            await guest.platform.reported("Ready", within=600)
            await guest.machine.shell_ready(within=300)
            questions = (UNIT, SSHD, ACCOUNT, HOST_KEYS, OUTCOME)
            await guest.platform.transcript.expect('"endpoint": "reprovisiondata"', within=60)
            waiting = {question: (await guest.ask(question)).output.strip() for question in questions}
            await guest.machine.power_off()
            reports = _reports(guest)
        markers = _markers(disk)
        async with boot(POOLED, name="pooled-2", disk=disk, vm=vm, faults=OWNER, media=False) as guest:
            await guest.platform.transcript.expect('"endpoint": "reprovisiondata"', within=600)
            await guest.machine.shell_ready(within=300)
            await guest.machine.set_link(up=False)
            await asyncio.sleep(3)
            await guest.machine.set_link(up=True)
            await guest.platform.reported("Ready", within=600)
            login = (await guest.ssh_with_key("hostname; id --user --name")).output
            await guest.machine.power_off()
            reports += _reports(guest)
        return Look(waiting, reports, markers, login, json.loads(disk.read(f"{STATE}/report.json")))


RUNNING = BootSequence("a pooled VM whose link goes down and up", _play)

in_guest = pytest.mark.parametrize("sequence", [on_demand(RUNNING)], ids=["link"])


def look_at(outcomes: dict[BootSequence, Future[Any]], sequence: BootSequence) -> Look:
    look: Look = outcomes[sequence].result()
    return look


@in_guest
def test_a_pooled_vm_waits_in_its_unit_and_nobody_can_log_in(
    outcomes: dict[BootSequence, Future[Any]], sequence: BootSequence
) -> None:
    waiting = look_at(outcomes, sequence).waiting
    assert set(waiting[UNIT].splitlines()) == {"TimeoutStartUSec=infinity", "ActiveState=activating"}
    assert waiting[SSHD] == "inactive"
    assert waiting[ACCOUNT] == ""
    assert waiting[HOST_KEYS] == "0"
    assert waiting[OUTCOME] == "in-pool"


@in_guest
def test_rebooted_in_the_pool_it_goes_on_waiting(
    outcomes: dict[BootSequence, Future[Any]], sequence: BootSequence
) -> None:
    look = look_at(outcomes, sequence)
    assert look.markers == {"pool": True, "applied": False, "ready": False}
    assert look.reports == ["Ready", "Ready"]


@in_guest
def test_it_is_its_owners_when_the_network_is_back(
    outcomes: dict[BootSequence, Future[Any]], sequence: BootSequence
) -> None:
    look = look_at(outcomes, sequence)
    assert look.login.split() == ["owned-01", USERNAME]
    assert (look.result["outcome"], look.result["error"]) == ("provisioned", None)
