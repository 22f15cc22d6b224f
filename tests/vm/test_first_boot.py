"""A first boot with everything a platform can give: key, password, customData, media, IMDS, WireServer.

The same rules hold for every guest: whatever its init, its network manager, its kernel's file systems or its layout.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.vm import recipes
from tests.vm.findings import Findings, Remains, autopsy, examine
from tests.vm.lab import CUSTOM_DATA, HOSTNAME, USERNAME, boot, new_disk

if TYPE_CHECKING:
    from tests.vm.recipes import Recipe

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

GUESTS = [
    recipes.NETWORKD,
    *(pytest.param(recipe, marks=pytest.mark.long) for recipe in (recipes.IFUPDOWN, recipes.NETWORK_MANAGER)),
]


@pytest.fixture(scope="module", params=GUESTS, ids=lambda recipe: recipe.name)
def booted(request: pytest.FixtureRequest) -> tuple[Findings, Remains]:
    return asyncio.run(_boot(request.param))


async def _boot(recipe: Recipe) -> tuple[Findings, Remains]:
    with new_disk(recipe) as disk:
        async with boot(recipe, name=f"first-boot-{recipe.name}", disk=disk) as guest:
            findings = await examine(guest)
            await guest.machine.power_off()
        return findings, autopsy(disk)


@pytest.fixture
def findings(booted: tuple[Findings, Remains]) -> Findings:
    return booted[0]


@pytest.fixture
def remains(booted: tuple[Findings, Remains]) -> Remains:
    return booted[1]


def test_ready_is_reported(findings: Findings) -> None:
    assert (findings.report["state"], findings.report["channel"]) == ("Ready", "xml")


def test_nothing_but_three_documents_is_exchanged(findings: Findings) -> None:
    # Those made while the link comes up never reach the platform, or their answers are lost.
    assert findings.requests[-1] == "health"
    assert set(findings.requests) == {"goal-state", "health", "instance"}


def test_the_key_logs_in(findings: Findings) -> None:
    assert findings.key_login.lines == [USERNAME]


def test_the_password_logs_in(findings: Findings) -> None:
    assert findings.password_login.lines == [USERNAME]
    assert findings.sshd_password_login == "yes"


def test_sudo_asks_for_the_password_where_there_is_one(findings: Findings) -> None:
    assert "a password is required" in findings.sudo.output


def test_the_hostname_is_set(findings: Findings) -> None:
    assert findings.hostname == HOSTNAME


def test_the_hostname_reaches_the_dhcp_server(findings: Findings) -> None:
    assert findings.dhcp_names[-1] == HOSTNAME


def test_the_disc_is_ejected(findings: Findings) -> None:
    assert findings.tray_open


def test_custom_data_is_kept_byte_for_byte(remains: Remains) -> None:
    assert remains.custom_data == CUSTOM_DATA


def test_the_password_is_nowhere_on_the_disk(remains: Remains) -> None:
    assert not remains.password_is_on_disk
    assert remains.password_field.startswith("$6$")
    assert "<UserPassword>REDACTED</UserPassword>" in remains.ovf_env


def test_the_report_tells_the_same(remains: Remains) -> None:
    assert (remains.result["outcome"], remains.result["health"]["reported"]) == ("provisioned", "Ready")
    assert remains.result["properties"]["hostname"] == {"value": HOSTNAME, "from": "media"}
