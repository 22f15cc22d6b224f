"""The emulated platform is proven by strangers: other provisioners, unmodified, provision a guest against it.

They come from Debian's packages and know nothing of minprov. Whatever they ask that the emulator does not answer as the
platform does, is a defect of the emulator.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.vm import recipes
from tests.vm.lab import HOSTNAME, USERNAME, boot

if TYPE_CHECKING:
    from minprov.emulator.guest.login import Answer
    from tests.vm.recipes import Recipe

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(900)]


SETTLED = {"cloud-init": "cloud-init status --wait", "waagent": "true"}


class Outcome:
    """What a stranger made of the VM."""

    report: dict[str, Any]
    events: list[dict[str, Any]]
    hostname: str
    key_login: Answer
    password_login: Answer


@pytest.fixture(scope="module", params=[recipes.CLOUD_INIT, recipes.WAAGENT], ids=lambda recipe: recipe.name)
def stranger(request: pytest.FixtureRequest) -> Outcome:
    return asyncio.run(_provision(request.param))


async def _provision(recipe: Recipe) -> Outcome:
    outcome = Outcome()
    async with boot(recipe, name=f"stranger-{recipe.name}") as guest:
        outcome.report = await guest.platform.reported("Ready", "NotReady", within=400)
        # Ready is not the end of their work: cloud-init makes the user afterwards.
        await guest.ask(SETTLED[recipe.name], within=300)
        outcome.key_login = await guest.ssh_with_key("id -un")
        outcome.password_login = await guest.ssh_with_password("id -un")
        outcome.hostname = (await guest.ask("hostname")).output.strip()
        outcome.events = guest.platform.events
    return outcome


def test_it_reports_ready(stranger: Outcome) -> None:
    assert stranger.report["state"] == "Ready"


def test_the_platform_understood_every_request(stranger: Outcome) -> None:
    refused = [
        (event["endpoint"], event["path"], event["detail"])
        for event in stranger.events
        if event["event"] == "request" and event["verdict"] == "refused" and event["endpoint"] != "vm-settings"
    ]
    assert refused == []


def test_the_key_of_the_media_logs_in(stranger: Outcome) -> None:
    assert stranger.key_login.lines == [USERNAME]


def test_the_password_of_the_media_logs_in(stranger: Outcome) -> None:
    assert stranger.password_login.lines == [USERNAME]


def test_the_host_name_is_set(stranger: Outcome) -> None:
    assert stranger.hostname == HOSTNAME
