"""A pooled VM in a guest: systemd lets minprov.service wait, networkd brings the network back, the kernel tells of it.

What the platform does to the machine is done by QEMU: the card's link goes down and up, the card is taken away, the
machine is stopped and goes on, and it is given another card.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from minprov.emulator.guest.machine import firmware_uuid
from minprov.emulator.guest.network import WIRESERVER
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
CARD = "00:0d:3a:65:43:21"
"""The owner's network card."""
QUESTION = '"endpoint": "reprovisiondata"'
# The platform gives the VM its owner when it is asked for its versions, which the guest does not do.
OWNER = f"""
[[versions]]
[versions.change]
reprovisioned = true
preprovisioned-vm = false
preprovisioned-vm-type = "None"
hostname = "owned-01"
mac-address = "{CARD.replace(":", "").upper()}"
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


async def _pull_cable(guest: Guest) -> None:
    """Let the link go down and up, as for pools of the type Running, and wait for the next question."""
    await guest.machine.set_link(up=False)
    await asyncio.sleep(3)
    await guest.platform.transcript.expect("(?s:.*)", within=1)  # all that it has asked so far
    await guest.machine.set_link(up=True)
    await guest.platform.transcript.expect(QUESTION, within=180)


async def _exchange_card(guest: Guest) -> None:
    """Take the card away, let the machine stand still, and give it another card, as for pools of the type Savable."""
    monitor = guest.machine.monitor
    await monitor.execute("device_del", id="nic0")
    await monitor.events.expect('"DEVICE_DELETED".*"device": "nic0"', within=120)  # when the guest has let it go
    await monitor.execute("stop")
    await asyncio.sleep(5)
    await monitor.execute("cont")
    card = {"driver": "virtio-net-pci", "netdev": "net0", "id": "nic1", "mac": CARD, "romfile": ""}
    await guest.platform.transcript.expect("(?s:.*)", within=1)
    await monitor.execute("device_add", **card)
    await guest.platform.transcript.expect(QUESTION, within=300)


async def _give_owner(guest: Guest) -> None:
    script = f"import urllib.request as r; r.urlopen('http://{WIRESERVER}/?comp=versions').read()"
    status, output = await guest.network.run(sys.executable, "-c", script, within=60)
    assert status == 0, output


async def _play() -> Look:
    vm = {"preprovisioned-vm": True, "preprovisioned-vm-type": "Savable", "hostname": "pool-0815"}
    with new_disk(POOLED) as disk:
        async with boot(POOLED, name="pooled-1", disk=disk, vm=vm) as guest:
            await guest.platform.reported("Ready", within=600)
            await guest.machine.shell_ready(within=300)
            questions = (UNIT, SSHD, ACCOUNT, HOST_KEYS, OUTCOME)
            await guest.platform.transcript.expect(QUESTION, within=60)
            waiting = {question: (await guest.ask(question)).output.strip() for question in questions}
            await guest.machine.power_off()
            reports = _reports(guest)
        markers = _markers(disk)
        async with boot(POOLED, name="pooled-2", disk=disk, vm=vm, faults=OWNER, media=False) as guest:
            await guest.platform.transcript.expect(QUESTION, within=600)
            await guest.machine.shell_ready(within=300)
            await _pull_cable(guest)
            await _exchange_card(guest)
            await _give_owner(guest)
            await guest.platform.reported("Ready", within=600)
            login = (await guest.ssh_with_key("hostname; id --user --name; cat /sys/class/net/eth0/address")).output
            await guest.machine.power_off()
            reports += _reports(guest)
        return Look(waiting, reports, markers, login, json.loads(disk.read(f"{STATE}/report.json")))


SAVABLE = BootSequence("a pooled VM whose network card is exchanged", _play)

in_guest = pytest.mark.parametrize("sequence", [on_demand(SAVABLE)], ids=["card"])


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
def test_it_is_its_owners_when_it_has_another_card(
    outcomes: dict[BootSequence, Future[Any]], sequence: BootSequence
) -> None:
    look = look_at(outcomes, sequence)
    assert look.login.split() == ["owned-01", USERNAME, CARD]
    assert (look.result["outcome"], look.result["error"]) == ("provisioned", None)
