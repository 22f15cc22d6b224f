"""The fault campaign of tests/faults/campaign.toml: a part of it here, all of it by `make faults`."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import minprov
from minprov.emulator.tables import read_table
from tests.faults.campaign import CAMPAIGN, load_campaign, machines
from tests.harness.case import parse_case
from tests.harness.driver import KILL_LIMIT, deadline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

CASES = {case.name: case for case in load_campaign()}
QUICK = [
    # Those that wait for their deadline come first.
    "IMDS alone/503/for good",
    "WireServer/unanswered/for good",
    "link/never up/no media",
    "media/hangs at the start/nothing else",
    "tool useradd/hangs",
    "hanging file system/state",
    "waiting/429 after the deadline",
    "endless answer/headers of a goal state",
    "import/aiohttp",
    "signals/SIGCHLD inherited as ignored",
    "JSON health/reset/for good",
    "goal state/no first byte/for good",
    "XML health/stalled body/for good",
    "IMDS alone/400/once",
    "IMDS beside media/garbage/for good",
    "media/EIO in a directory/IMDS has the rest",
    "files/full/home",
    "files/read-only/sudoers.d",
    "tool chpasswd/killed",
    "tool useradd/missing",
    # Each property, when what brings it about does nothing and says that it did.
    "lie/hostname",
    "lie/hostname file",
    "tool useradd/lies",
    "tool usermod/lies",
    "lie/home owner",
    "tool chpasswd/lies",
    "lie/authorized_keys",
    "tool ssh-keygen/lies",
    "tool sshd/lies",
    "lie/sshd drop-in",
    "lie/sudo rule",
    "lie/customData",
    "lie/ovf-env",
]
TOOL = re.compile(r'(?:find_tool|account_tool|own_tool)\(((?:"[a-z -]+"(?:, )?)+)\)')


@pytest.fixture(scope="module")
def started() -> Iterator[dict[str, Future[dict[str, Any]]]]:
    """Start them all, some at a time: each test finds its own done, or waits for it."""
    with machines() as harness:
        yield {name: CASES[name].start(harness) for name in QUICK}


@pytest.mark.root
@pytest.mark.parametrize("name", QUICK)
def test_fault(name: str, started: dict[str, Future[dict[str, Any]]]) -> None:
    result = started[name].result()
    if reason := result.get("unavailable"):
        pytest.skip(reason)
    print("\n".join(result.get("log", ())))
    assert not CASES[name].judge(result)


def test_every_pattern_of_the_campaign_matches_a_case() -> None:
    table: dict[str, Any] = read_table(CAMPAIGN)
    for rule in table["expect"]:
        for pattern in rule["match"]:
            assert fnmatch.filter(CASES, pattern), pattern


def test_no_case_may_take_longer_than_its_deadline_and_ten_seconds() -> None:
    for case in CASES.values():
        (run,) = parse_case(dict(case.scenario), file=CAMPAIGN).runs
        assert case.expected.within <= deadline(run) + KILL_LIMIT, case.name


@pytest.mark.parametrize(
    ("health", "differs"),
    [
        (["xml: NotReady, applied property does not hold"], False),
        (["xml: NotReady, system tool failed"], True),
        (["json: NotReady, applied property does not hold"], True),
        (["xml: Ready"], True),
        ([], True),
    ],
)
def test_a_case_that_comes_out_otherwise_is_told(health: list[str], differs: bool) -> None:
    observed = {"outcome": "failed", "exit_status": 71, "reason": "applied property does not hold", "health": health}
    assert bool(CASES["lie/hostname"].judge({"observed": [observed], "faults": []})) is differs


def test_every_tool_has_its_cases() -> None:
    package = Path(minprov.__file__).parent
    others = {package / "duties", package / "emulator", package / "image"}
    of_a_run = (path for path in package.rglob("*.py") if others.isdisjoint(path.parents))
    source = "".join(path.read_text() for path in of_a_run)
    tools = {name for match in TOOL.finditer(source) for name in re.findall('"([a-z -]+)"', match[1])}
    busybox = {"adduser", "addgroup", "deluser"}  # where they are not busybox's they are Debian's front ends
    # Only where something else has failed or is lacking: a sudo that wants a terminal; a dry run that needs a place of
    # its own; sudo itself, and login-doas-* are the cases of doas.
    busybox |= {"script", "unshare", "doas"}
    assert {"useradd", "sshd", "visudo"} <= tools
    places = {name.split("/")[0] for name in CASES}
    assert places >= {f"tool {tool.split(' ')[0]}" for tool in tools - busybox - {"chroot"}}
