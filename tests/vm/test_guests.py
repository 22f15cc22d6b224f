"""The boots of a disk: its first boot with everything a platform can give, a reboot, and the boot as another VM's disk.

The same rules hold for every guest: whatever its init, its network manager, its kernel's file systems or its layout.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from minprov.emulator.guest.machine import firmware_uuid
from tests.vm import recipes
from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.findings import STATE, DiskFindings, Findings, examine, examine_disk
from tests.vm.lab import ARTEFACTS, CUSTOM_DATA, HOSTNAME, USERNAME, VM_ID, boot, new_disk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from minprov.emulator.guest.login import Answer
    from tests.vm.machine import Disk
    from tests.vm.recipes import Recipe

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

OTHER_VM = {
    "vm-id": "0b1f4b6e-8d1c-4a35-9f5e-5f2f6f3f2a77",
    "hostname": "web-02",
    "username": "second",
    "container-id": "a3a5e0ad-6a1e-4f0e-9d38-1c2f5b7e9f01",
}
IMAGE_HOSTNAME = "golden"
SETTLED = "systemctl is-system-running --wait"
SERVICE = "systemctl show minprov.service --property=ActiveState,Result,ExecMainStartTimestampMonotonic"
ENFORCING = "cat /sys/fs/selinux/enforce"
LABELS = f"stat --format=%C /etc/shadow /home/{USERNAME} /home/{USERNAME}/.ssh/authorized_keys"
WARNINGS = "journalctl --boot --unit=minprov.service --priority=warning --output=cat --quiet"


class Reboot(NamedTuple):
    """A later boot of the same VM, with everything there as at the first."""

    requests: list[str]
    dhcp_names: list[str]
    tray_open: bool
    hostname: str
    login: Answer
    service: str
    console: str


class Boots(NamedTuple):
    """One disk's, boot after boot."""

    recipe: Recipe
    first: Findings
    disk_findings: DiskFindings
    reboot: Reboot
    report_after_reboot: dict[str, Any]
    captured: Findings | None
    """As the disk of another VM, in the sequences that go so far."""
    ready_markers: tuple[bool, bool]


async def _boot_all(recipe: Recipe, *, captured: bool = False) -> Boots:
    with new_disk(recipe) as disk:
        first = await _boot(recipe, disk, "1-first")
        disk_findings = examine_disk(disk, etc=recipe.etc)
        reboot = await _reboot(recipe, disk)
        report_after_reboot = examine_disk(disk, etc=recipe.etc).result
        later = await _boot(recipe, disk, "3-captured", vm=OTHER_VM) if captured else None
        return Boots(
            recipe=recipe,
            first=first,
            disk_findings=disk_findings,
            reboot=reboot,
            report_after_reboot=report_after_reboot,
            captured=later,
            ready_markers=(_is_ready(disk, VM_ID), _is_ready(disk, OTHER_VM["vm-id"])),
        )


async def _boot(recipe: Recipe, disk: Disk, name: str, *, vm: Mapping[str, str] | None = None) -> Findings:
    questions = [f"id -un {USERNAME}", ENFORCING, LABELS, *([SETTLED, WARNINGS] if recipe.systemd else [])]
    async with boot(recipe, name=f"{recipe.name}-{name}", disk=disk, vm=vm) as guest:
        user, hostname = (vm["username"], vm["hostname"]) if vm else (USERNAME, HOSTNAME)
        findings = await examine(guest, *questions, user=user, hostname=hostname)
        if recipe.systemd:
            journal = await guest.ask("journalctl --boot --no-pager --output=short-monotonic", within=240)
            (ARTEFACTS / f"{recipe.name}-{name}" / "journal.log").write_text(journal.output)
        await guest.machine.power_off()
    return findings


async def _reboot(recipe: Recipe, disk: Disk) -> Reboot:
    async with boot(recipe, name=f"{recipe.name}-2-reboot", disk=disk) as guest:
        login = await guest.ssh_with_key("id -un")
        await guest.machine.shell_ready(within=200)
        if recipe.systemd:
            await guest.ask(SETTLED, within=300)
        reboot = Reboot(
            requests=guest.platform.requests,
            dhcp_names=guest.network.dhcp_names,
            tray_open=await guest.machine.tray_is_open(),
            hostname=(await guest.ask("hostname")).output.strip(),
            login=login,
            service=(await guest.ask(SERVICE)).output if recipe.systemd else "",
            console=guest.machine.console.text,
        )
        await guest.machine.power_off()
    return reboot


def _is_ready(disk: Disk, vm_id: str) -> bool:
    return disk.exists(f"{STATE}/ready/{firmware_uuid(vm_id)}")


CAPTURED = BootSequence(
    "no-disc-file-systems", functools.partial(_boot_all, recipes.NO_DISC_FILE_SYSTEMS, captured=True)
)
EVERY_TIME = (recipes.SYSVINIT,)
ON_DEMAND = (
    recipes.NETWORKD,
    recipes.IFUPDOWN,
    recipes.NETWORK_MANAGER,
    recipes.IMMUTABLE,
    recipes.OPENRC,
    recipes.RUNIT,
    recipes.FINIT,
    recipes.S6,
    recipes.BUSYBOX,
)
ENFORCED = [
    on_demand(BootSequence(recipe.name, functools.partial(_boot_all, recipe)))
    for recipe in (recipes.SELINUX, recipes.SELINUX_WITH_RULE)
]
BOOTS = [
    CAPTURED,
    *(BootSequence(recipe.name, functools.partial(_boot_all, recipe)) for recipe in EVERY_TIME),
    *(on_demand(BootSequence(recipe.name, functools.partial(_boot_all, recipe))) for recipe in ON_DEMAND),
    *ENFORCED,
]


@pytest.fixture(scope="module", params=BOOTS, ids=lambda sequence: sequence.name)
def boots(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Boots]]) -> Boots:
    return outcomes[request.param].result()


@pytest.fixture(scope="module", params=[CAPTURED], ids=lambda sequence: sequence.name)
def captured_boots(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Boots]]) -> Boots:
    return outcomes[request.param].result()


@pytest.fixture(scope="module", params=ENFORCED, ids=lambda sequence: sequence.name)
def selinux_boots(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Boots]]) -> Boots:
    return outcomes[request.param].result()


@pytest.fixture
def captured(captured_boots: Boots) -> Findings:
    assert captured_boots.captured
    return captured_boots.captured


# --- the first boot ---------------------------------------------------------------------------------------------------


def test_ready_is_reported(boots: Boots) -> None:
    assert (boots.first.report["state"], boots.first.report["channel"]) == ("Ready", "xml")


def test_nothing_but_three_documents_is_exchanged(boots: Boots) -> None:
    # Those made while the link comes up never reach the platform, or their answers are lost.
    assert boots.first.requests.count("health") == 1
    assert set(boots.first.requests) == {"goal-state", "health", "instance"}


def test_the_console_tells_how_it_ended(boots: Boots) -> None:
    assert boots.first.last_word.startswith("minprov: provisioned, Ready reported in ")


def test_the_key_logs_in(boots: Boots) -> None:
    assert boots.first.key_login.lines == [USERNAME]


def test_the_password_logs_in(boots: Boots) -> None:
    assert boots.first.password_login.lines == [USERNAME]
    assert boots.first.sshd_password_login == "yes"


def test_sudo_asks_for_the_password_where_there_is_one(boots: Boots) -> None:
    assert "a password is required" in boots.first.sudo.output


def test_the_hostname_is_set(boots: Boots) -> None:
    assert boots.first.hostname == HOSTNAME


def test_the_hostname_reaches_the_dhcp_server_unless_something_is_in_the_way(boots: Boots) -> None:
    # Where something is, the client may still ask for its lease so late that it finds the name set.
    names = {HOSTNAME, IMAGE_HOSTNAME} if boots.recipe.unpublished else {HOSTNAME}
    assert boots.first.dhcp_names[-1] in names


def test_no_link_is_taken_down(boots: Boots) -> None:
    states = [
        "UP" in re.findall(r"\w+", line.partition(">")[0]) for line in boots.first.link_events if "link/ether" in line
    ]
    assert all(states[states.index(True) :]), boots.first.link_events


def test_the_disc_is_ejected(boots: Boots) -> None:
    assert boots.first.tray_open


def test_nothing_else_is_worth_a_warning(boots: Boots) -> None:
    if not boots.recipe.systemd:
        pytest.skip("has no journal")
    # What sudo logs, whoever asks it, where neither /etc/hosts nor a module of the resolver knows the host.
    seen = [line for line in boots.first.answers[WARNINGS].splitlines() if "unable to resolve host" not in line]
    assert seen == list(boots.recipe.warnings)


def test_custom_data_is_kept_byte_for_byte(boots: Boots) -> None:
    assert boots.disk_findings.custom_data == CUSTOM_DATA


def test_the_password_is_nowhere_on_the_disk(boots: Boots) -> None:
    assert not boots.disk_findings.password_is_on_disk
    assert boots.disk_findings.password_field.startswith("$6$")
    assert "<UserPassword>REDACTED</UserPassword>" in boots.disk_findings.ovf_env


def test_the_report_tells_the_same(boots: Boots) -> None:
    assert (boots.disk_findings.result["outcome"], boots.disk_findings.result["health"]["reported"]) == (
        "provisioned",
        "Ready",
    )
    assert boots.disk_findings.result["properties"]["hostname"] == {"value": HOSTNAME, "from": "media"}


def test_under_selinux_each_file_has_the_label_of_its_place(selinux_boots: Boots) -> None:
    assert selinux_boots.first.answers[ENFORCING] == "1"
    types = [label.split(":")[2] for label in selinux_boots.first.answers[LABELS].split()]
    assert types == ["shadow_t", "user_home_dir_t", "ssh_home_t"]


# --- a reboot ---------------------------------------------------------------------------------------------------------


def test_a_reboot_does_not_start_the_program(boots: Boots) -> None:
    assert boots.report_after_reboot == boots.disk_findings.result
    assert "minprov" not in boots.reboot.console
    assert not boots.reboot.tray_open
    if boots.recipe.systemd:
        assert dict(line.split("=", 1) for line in boots.reboot.service.split()) == {
            "ActiveState": "inactive",
            "Result": "exec-condition",
            "ExecMainStartTimestampMonotonic": "0",
        }


def test_a_reboot_asks_the_platform_for_nothing(boots: Boots) -> None:
    assert boots.reboot.requests == []


def test_a_reboot_keeps_what_was_provisioned(boots: Boots) -> None:
    assert boots.reboot.hostname == HOSTNAME
    assert boots.reboot.login.lines == [USERNAME]


def test_after_a_reboot_every_dhcp_request_has_the_hostname(boots: Boots) -> None:
    assert set(boots.reboot.dhcp_names) == {HOSTNAME}


# --- the boot as another VM's disk ------------------------------------------------------------------------------------


def test_a_captured_disk_is_provisioned_for_the_vm_it_comes_to(captured: Findings) -> None:
    assert captured.report["state"] == "Ready"
    assert captured.hostname == OTHER_VM["hostname"]
    assert captured.key_login.lines == [OTHER_VM["username"]]
    assert captured.dhcp_names[-1] == OTHER_VM["hostname"]


def test_a_captured_disk_keeps_the_users_it_had(captured: Findings) -> None:
    assert captured.answers[f"id -un {USERNAME}"] == USERNAME


def test_each_vm_has_a_marker_of_its_own(captured_boots: Boots) -> None:
    assert captured_boots.ready_markers == (True, True)
