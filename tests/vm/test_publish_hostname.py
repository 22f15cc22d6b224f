"""A hostname that changes while dhcpcd runs: as the first boot sets it, and for `minprov publish-hostname` later."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.findings import LINK_EVENTS, examine
from tests.vm.lab import ARTEFACTS, HOSTNAME, boot
from tests.vm.recipes import DHCPCD

if TYPE_CHECKING:
    from concurrent.futures import Future

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

# More than one, as dhcpcd 9.4.1 takes no second command by its socket.
CHANGED = ("renamed-01", "renamed-02")
SETTLED = "systemctl is-system-running --wait"


class Seen(NamedTuple):
    """One boot: the names that the DHCP server was told, before the changes and after them."""

    state: str
    first_names: list[str]
    later_names: list[str]
    said: list[str]
    link_events: list[str]


async def _rename() -> Seen:
    async with boot(DHCPCD, name="publish-hostname") as guest:
        findings = await examine(guest, SETTLED)
        said = []
        for name in CHANGED:
            said += (await guest.ask(f"hostname {name} && minprov publish-hostname", within=120)).lines
            await guest.network.dhcp.expect(f"client provides name: {name}$", within=60)
        link_events = (await guest.ask(LINK_EVENTS)).output.splitlines()
        journal = await guest.ask("journalctl --boot --no-pager --output=short-monotonic", within=240)
        (ARTEFACTS / "publish-hostname" / "journal.log").write_text(journal.output)
        names = guest.network.dhcp_names
        await guest.machine.power_off()
    before = len(findings.dhcp_names)
    return Seen(findings.answers[SETTLED], names[:before], names[before:], said, link_events)


@pytest.mark.parametrize("sequence", [on_demand(BootSequence("dhcpcd, renamed", _rename))])
def test_dhcpcd_sends_a_changed_name_when_asked(
    sequence: BootSequence, outcomes: dict[BootSequence, Future[Seen]]
) -> None:
    seen = outcomes[sequence].result()
    assert seen.state == "running"
    assert seen.first_names[-1] == HOSTNAME, "asked by the run itself"
    assert seen.said == [f"dhcpcd asked to send {name}" for name in CHANGED]
    assert tuple(dict.fromkeys(seen.later_names)) == CHANGED
    states = [
        "UP" in line.partition("<")[2].partition(">")[0].split(",") for line in seen.link_events if "ether" in line
    ]
    assert all(states[states.index(True) :]), seen.link_events
