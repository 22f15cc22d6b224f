"""minprov in a guest where another program has a hand in the same things: docs/beside.md."""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from minprov.emulator.guest.machine import firmware_uuid
from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.findings import LAST_WORD, STATE
from tests.vm.lab import ARTEFACTS, VM_ID, boot
from tests.vm.proxy_agent import TOO_EARLY
from tests.vm.recipes import BESIDE_PROVISIONING_WAAGENT, BESIDE_WAAGENT, PROXY_AGENT

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tests.vm.lab import Guest
    from tests.vm.recipes import Recipe

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

RESULT = f"cat {STATE}/report.json"


class Outcome(NamedTuple):
    """A first boot: what was reported, what the platform was asked, and what the guest answers."""

    state: str
    requests: list[dict[str, Any]]
    answers: dict[str, str]

    @property
    def result(self) -> dict[str, Any]:
        """What minprov wrote of its run."""
        result: dict[str, Any] = json.loads(self.answers[RESULT])
        return result

    def accepted(self, agent: str = "") -> list[dict[str, Any]]:
        """Return the requests that the platform accepted of an agent, or of all."""
        return [
            request
            for request in self.requests
            if request["verdict"] == "accepted" and request["headers"].get("user-agent", "").startswith(agent)
        ]


async def _examine(guest: Guest, name: str, report: dict[str, Any], *questions: str) -> Outcome:
    answers = {question: (await guest.ask(question)).output.strip() for question in (RESULT, *questions)}
    journal = await guest.ask("journalctl --boot --no-pager --output=short-monotonic", within=240)
    (ARTEFACTS / name / "journal.log").write_text(journal.output)
    requests = [event for event in guest.platform.events if event["event"] == "request"]
    return Outcome(report["state"], requests, answers)


# --- a waagent that stays for extensions ------------------------------------------------------------------------------

WAAGENT_LOG = "cat /var/log/waagent.log"
MINPROV_ENDED = "systemctl show --value --property=ExecMainExitTimestampMonotonic minprov.service"
WAAGENT_STARTED = "systemctl show --value --property=ExecMainStartTimestampMonotonic walinuxagent.service"
REPORTS = ("health", "provisioning-health")
PROVISIONED = "cat /var/lib/waagent/provisioned"
# What its daemon starts when it is done with provisioning, with the first goal state.
COMPLETED = "ProcessExtensions[A-Za-z]* completed"
GOES_ON = f"until grep -q '{COMPLETED}' /var/log/waagent.log; do sleep 1; done"


async def _with_waagent(recipe: Recipe) -> Outcome:
    async with boot(recipe, name=recipe.name) as guest:
        report = await guest.platform.reported("Ready", "NotReady", within=400)
        await guest.machine.shell_ready(within=200)
        await guest.ask(GOES_ON, within=400)
        questions = (WAAGENT_LOG, MINPROV_ENDED, WAAGENT_STARTED, PROVISIONED)
        return await _examine(guest, recipe.name, report, *questions)


WITH_WAAGENT = [
    on_demand(BootSequence(recipe.name, functools.partial(_with_waagent, recipe)))
    for recipe in (BESIDE_WAAGENT, BESIDE_PROVISIONING_WAAGENT)
]


@pytest.fixture(scope="module", params=WITH_WAAGENT, ids=lambda sequence: sequence.name)
def with_waagent(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Outcome]]) -> Outcome:
    return outcomes[request.param].result()


def test_ready_is_reported_once_and_by_minprov(with_waagent: Outcome) -> None:
    reports = [request for request in with_waagent.accepted() if request["endpoint"] in REPORTS]
    assert [request["headers"]["user-agent"].partition("/")[0] for request in reports] == ["minprov"]
    assert with_waagent.state == "Ready"


def test_waagent_starts_after_minprov_and_finds_the_vm_provisioned(with_waagent: Outcome) -> None:
    assert int(with_waagent.answers[WAAGENT_STARTED]) > int(with_waagent.answers[MINPROV_ENDED]) > 0
    assert with_waagent.answers[PROVISIONED] == firmware_uuid(VM_ID)
    assert "Provisioning already completed, skipping." in with_waagent.answers[WAAGENT_LOG]


def test_waagent_goes_on_to_its_goal_states(with_waagent: Outcome) -> None:
    assert re.search(COMPLETED, with_waagent.answers[WAAGENT_LOG])
    asked = {request["endpoint"] for request in with_waagent.accepted("WALinuxAgent/")}
    assert asked >= {"goal-state", "extensions-config"}


# --- the guest proxy agent --------------------------------------------------------------------------------------------

SIGNATURE = "x-ms-azure-host-authorization"
PROXY_LOG = "journalctl --boot --unit=azure-proxy-agent.service --output=cat"


async def _behind_proxy_agent() -> Outcome:
    faults = "[imds]\nsigned-only = true\n[wireserver]\nsigned-only = true\n"
    vm = {"provision-guest-proxy-agent": True}
    async with boot(PROXY_AGENT, name="proxy-agent", vm=vm, faults=faults) as guest:
        report = await guest.platform.reported("Ready", "NotReady", within=400)
        await guest.machine.console.expect(LAST_WORD, within=60)
        await guest.machine.shell_ready(within=200)
        return await _examine(guest, "proxy-agent", report, PROXY_LOG)


BEHIND_PROXY_AGENT = BootSequence("guest proxy agent", _behind_proxy_agent)


@pytest.fixture(scope="module", params=[BEHIND_PROXY_AGENT], ids=lambda sequence: sequence.name)
def signed(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Outcome]]) -> Outcome:
    return outcomes[request.param].result()


def test_a_vm_whose_requests_are_signed_for_it_is_provisioned(signed: Outcome) -> None:
    assert signed.state == "Ready"
    assert {request["endpoint"] for request in signed.accepted()} >= {"goal-state", "health"}
    assert all(SIGNATURE in request["headers"] for request in signed.accepted())


def test_what_an_agent_answers_that_is_not_ready_is_no_last_word(signed: Outcome) -> None:
    refused = re.findall(r'"(?:GET|POST) \S+ HTTP/1\.1" (\d+) -', signed.answers[PROXY_LOG])
    assert {int(status) for status in refused} >= {*TOO_EARLY}
