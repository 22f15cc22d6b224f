"""Whether somebody can log in, where an image stands in the way: two guests prove what the login scenarios hold.

The images are prepared by the scenarios' own lines, so that scenario and guest are about the same obstacle.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.vm.boot_sequence import BootSequence
from tests.vm.findings import Findings, examine
from tests.vm.image import PROJECT
from tests.vm.lab import USERNAME, boot, new_disk
from tests.vm.recipes import NETWORKD

if TYPE_CHECKING:
    from concurrent.futures import Future

    from minprov.emulator.guest.login import Answer

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

READ_KEYS = f"cat /etc/ssh/%/keys/{USERNAME}-1000"
KEY_ONLY = {"password": None, "disable-password-authentication": True}


def _prepared_as(*cases: str) -> tuple[str, ...]:
    """Return the commands by which scenarios prepare their images."""
    tables = (tomllib.loads((PROJECT / "tests/cases" / name / "case.toml").read_text()) for name in cases)
    return tuple(table["prepare"] for table in tables)


OBSTRUCTED = replace(
    NETWORKD,
    name="login-obstructed",
    commands=(
        *NETWORKD.commands,
        *_prepared_as(
            *("login-keys-central", "login-account-expired-by-default", "login-home-mode"),
            *("login-sudo-terminal", "login-sudo-later-rule"),
        ),
    ),
)
CLOSED = replace(NETWORKD, name="login-closed", commands=(*NETWORKD.commands, *_prepared_as("login-allow-users")))


# --- keys elsewhere, accounts born expired, closed homes, a sudo that wants a terminal -------------------------------


async def _obstructed() -> Findings:
    with new_disk(OBSTRUCTED) as disk:
        async with boot(OBSTRUCTED, name="login-obstructed", disk=disk, vm=KEY_ONLY) as guest:
            findings = await examine(
                guest, f"cat /etc/ssh/%/keys/{USERNAME}-1000", "systemctl is-active minprov.service"
            )
            await guest.machine.power_off()
        return findings


@pytest.fixture(
    scope="module", params=[BootSequence("login obstructed", _obstructed)], ids=lambda sequence: sequence.name
)
def obstructed(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Findings]]) -> Findings:
    return outcomes[request.param].result()


def test_what_stands_in_the_way_is_put_right(obstructed: Findings) -> None:
    assert obstructed.report["state"] == "Ready"
    assert obstructed.key_login.lines == [USERNAME]
    assert obstructed.sudo.lines == ["0"]


def test_the_keys_are_where_sshd_looks_for_them(obstructed: Findings) -> None:
    assert obstructed.answers[READ_KEYS].startswith("ssh-")


# --- an sshd that admits others alone ---------------------------------------------------------------------------------


class Refusal(NamedTuple):
    """What the run said of an image that lets nobody in, and whether it is true."""

    report: dict[str, Any]
    key_login: Answer


async def _closed() -> Refusal:
    with new_disk(CLOSED) as disk:
        async with boot(CLOSED, name="login-closed", disk=disk, vm=KEY_ONLY) as guest:
            report = await guest.platform.reported("Ready", "NotReady", within=500)
            await guest.ask("systemctl is-system-running --wait", within=240)
            key_login = await guest.ssh_with_key("id -un")
            await guest.machine.power_off()
        return Refusal(report, key_login)


@pytest.fixture(scope="module", params=[BootSequence("login closed", _closed)], ids=lambda sequence: sequence.name)
def closed(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Refusal]]) -> Refusal:
    return outcomes[request.param].result()


def test_an_image_that_admits_others_alone_is_not_ready(closed: Refusal) -> None:
    assert closed.report["state"] == "NotReady"
    assert "setting=AllowUsers ops root@10.0.0.1|file=/etc/ssh/sshd_config|line=1|" in closed.report["description"]


def test_and_nobody_could_have_logged_in(closed: Refusal) -> None:
    assert closed.key_login.status != 0
