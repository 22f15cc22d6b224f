"""A pooled VM waits for its owner, whatever happens to its network meanwhile.

The whole way, from the pool's ovf-env to the owner's login, is in the scenarios `pooled-waits…`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from unittest.mock import Mock, call

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.commands import run, wait_in_pool
from minprov.config import Options
from minprov.duties.wait_in_pool import duty
from minprov.duties.wait_in_pool.links import RTM_DELLINK, RTM_NEWLINK, parse_links
from minprov.emulator.faults import parse_faults
from minprov.emulator.ovf_env import build_ovf_env
from minprov.emulator.platform import Emulator
from minprov.emulator.vm import SAMPLE_VM
from minprov.errors import ProvisioningError, Reason
from minprov.last_resort import LastResort
from minprov.machine.identity import Identity
from minprov.outcome.result import Result
from minprov.properties.pool import has_no_limit

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent.parent
OWNED: dict[str, Any] = {"change": {"reprovisioned": True}}


in_network = pytest.mark.timeout(240)


def tell(story: str, directory: Path) -> list[str]:
    """Run a story of `pool_network` in a network of its own and return what it came to."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("needs unshare and ip")
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", "tests.duties.pool_network"]
    done = subprocess.run([*command, story, str(directory)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@in_network
@pytest.mark.parametrize("story", ["link-down-up", "other-nic"])
def test_a_change_of_the_network_has_the_owner_asked_for_at_once(story: str, tmp_path: Path) -> None:
    # Nothing else can have it asked: the pause is ten minutes long there.
    assert tell(story, tmp_path) == ["owned-01"]


@in_network
def test_ready_is_not_reported_again_by_another_nic(tmp_path: Path) -> None:
    assert tell("report-once", tmp_path) == ["None 1 True"]


@in_network
def test_a_link_is_lost_that_was_up_and_no_other(tmp_path: Path) -> None:
    assert tell("notice", tmp_path) == [
        "ip address add 10.0.0.4/24 dev e0 | kept",
        "ip link set lo down | kept",
        "ip link set p0 down | lost",
        "ip link del e0 | lost",
    ]


@given(messages=st.binary(max_size=200))
def test_whatever_is_read_as_a_message_of_links_comes_to_an_end(messages: bytes) -> None:
    parse_links(messages)


def test_messages_are_taken_apart_and_others_passed_over() -> None:
    link = struct.pack("=BxHiII", 0, 1, 7, 0x41, 0)
    messages = b"".join(
        struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)
        for kind, body in ((RTM_NEWLINK, link), (24, b"route"), (RTM_DELLINK, link + b"more"))
    )
    assert parse_links(messages) == [(RTM_NEWLINK, 7, 0x41), (RTM_DELLINK, 7, 0x41)]


def fetch(monkeypatch: pytest.MonkeyPatch, *steps: dict[str, Any], timeout: float = 600.0) -> tuple[bytes, int]:
    """Return what is taken for the owner's ovf-env, and after how many requests."""
    monkeypatch.setattr(duty, "POOL_POLL", 0.01)

    async def ask() -> tuple[bytes, int]:
        faults = parse_faults({"reprovisiondata": list(steps)}, file=Path("none"))
        async with Emulator(SAMPLE_VM, faults=faults) as platform:
            async with asyncio.timeout(60):
                document = await duty.fetch_ovf_env(Options(imds_url=platform.imds_url, timeout=timeout))
            return document, len(platform.requests)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "steps",
    [
        [{"times": 3}],
        [{"status": 410}, {"status": 401}, {"status": 500}, {"status": 429, "headers": {"Retry-After": "0"}}],
        [{"drop": "reset"}, {"drop": "close"}, {**OWNED, "truncate": 100, "drop": "reset"}],
        [{"status": 200, "body": body} for body in ("", "<html>not yet</html>", {"garbage": 500})],
    ],
    ids=["no owner", "statuses", "broken answers", "no ovf-env"],
)
def test_the_owner_is_asked_for_until_there_is_one(
    steps: Sequence[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    document, requests = fetch(monkeypatch, *steps, OWNED)
    assert document == build_ovf_env(SAMPLE_VM)
    assert requests == sum(step.get("times", 1) for step in steps) + 1


def test_an_ovf_env_that_stays_unusable_is_what_the_run_is_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    garbage = {"status": 200, "body": "<Environment/>", "times": "forever"}
    assert fetch(monkeypatch, {"status": 200, "body": "<a/>", "times": 3}, {}, garbage) == (b"<Environment/>", 9)


def test_no_deadline_runs_while_a_vm_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who holds the deadline is the run, with an alarm for itself and its last resort, and then what tells the pool.
    alarms: list[bool] = []
    options = Options(timeout=600.0, state_dir=str(tmp_path))
    identity = Identity(chassis_asset_tag=None, dmi_uuid="an-id", vm_id="an-id")

    async def enter(*_: object) -> None:
        alarms.append(signal.getitimer(signal.ITIMER_REAL) > (options.timeout, 0.0))

    async def fetch(_: Options) -> bytes:
        alarms.append(signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0))
        return b""

    monkeypatch.setattr("minprov.machine.identity.read_identity", lambda: identity)
    monkeypatch.setattr(duty, "enter", enter)
    monkeypatch.setattr(duty, "fetch_ovf_env", fetch)
    wait_in_pool._wait(options, "Running")
    assert alarms == [True, False]

    def become(*arguments: str) -> NoReturn:
        alarms.append(signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0))
        raise InterruptedError(*arguments)

    monkeypatch.setattr("minprov.machine.own_program.become", become)
    last_resort = Mock(LastResort)
    signal.setitimer(signal.ITIMER_REAL, options.timeout)
    with pytest.raises(InterruptedError, match="wait-in-pool"):
        run._wait_in_pool(Result(), [], last_resort)
    assert alarms == [True, False, False]
    assert last_resort.mock_calls == [call.end()]


def test_the_deadline_of_a_run_is_none_for_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch(monkeypatch, {"times": 3}, OWNED, timeout=0.001) == (build_ovf_env(SAMPLE_VM), 4)


def test_who_is_in_no_pool_does_not_wait(tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.write_text(f'preprovisioning = "wait"\nstate-dir = {json.dumps(str(tmp_path))}\n')
    with pytest.raises(ProvisioningError) as caught:
        wait_in_pool.run(["--", "--config", str(config)])
    assert caught.value.reason in (Reason.USAGE, Reason.NOT_PERMITTED)


def test_where_it_is_refused_there_is_nothing_to_wait_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.toml").touch()
    assert wait_in_pool.run(["--", "--config", str(tmp_path / "m.toml")]) == 0
    assert capsys.readouterr().out == "preprovisioning is refused\n"


@pytest.mark.parametrize(
    ("drop_in", "allows"),
    [
        ((ROOT / "units/wait-in-pool.conf").read_text(), True),
        ("[Service]\n TimeoutStartSec = 0\n", True),
        ("[Service]\nTimeoutStartSec=630\n#TimeoutStartSec=infinity\n", False),
        ("[Service]\nTimeoutStopSec=infinity\n", False),
    ],
)
def test_a_drop_in_that_has_systemd_wait_is_known(drop_in: str, allows: bool) -> None:
    assert has_no_limit(drop_in) is allows
