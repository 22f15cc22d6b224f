"""A sample of `make attack`: that it finds what it looks for, and what docs/attacks.md says was tried."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minprov.emulator.media import media_files
from minprov.emulator.vm import SAMPLE_VM
from tests.attack.readers import attack_readers
from tests.attack.whole_runs import ADVERSARY, PLACES, Attack, attacks, judge
from tests.harness.client import Harness

REPOSITORY = Path(__file__).parents[1]
TABLE = REPOSITORY / "docs/attacks.md"
HELD: dict[str, Any] = {
    "exit_status": 0,
    "health": ["xml: Ready"],
    "console": ["minprov: provisioned"],
    "actions": {"ensure-user": "changed"},
    "changes": {"/etc/hostname": ["file 0644 0:0", "+web-01"]},
    "after": ["swaps 5", "same", "whole", "may"],
}
BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIN6R3kXoWw6vvVYb2mNaTnjBz2O2tXQ4Jc0m5Zk4c7dE"


def judged(**changes: object) -> list[str]:
    """Return what did not hold in a run that held but for these observations."""
    attack = Attack("adversary, of a test", {}, media_files(SAMPLE_VM)["ovf-env.xml"])
    return judge(attack, {"observed": [{**HELD, **changes}], "faults": []}).broken


def test_nothing_is_found_where_all_holds() -> None:
    assert judged() == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"exit_status": 70, "health": ["xml: NotReady, x"]}, "exit status 70"),
        ({"console": []}, "nothing is on the console"),
        ({"health": []}, "the platform was told []"),
        ({"exit_status": 71}, "Ready, and exit status 71"),
        ({"actions": {"grant-sudo": "failed"}}, "Ready, and what is required failed"),
        ({"after": ["swaps 5", "same", "whole"]}, "does not let the administrator become root"),
        ({"after": ["swaps 5", "whole", "may"]}, "of root's is changed"),
        ({"after": ["swaps 5", "same", "whole", "may", "read out: /home/a/x"]}, "read out"),
        ({"after": ["swaps 0", "same", "whole", "may"]}, "the adversary did not go on"),
        ({"changes": {"/etc/cron.d/evil": ["file 0644 0:0"]}}, "changed: /etc/cron.d/evil"),
        ({"changes": {"/etc/shadow": ["file 0640 1000:42"]}}, "of somebody else's now"),
        ({"changes": {"/etc/shadow": ["file 0640 0:42", "-root:*:20000"]}}, "of root's is lost"),
        (
            {"changes": {"/home/azureuser/.ssh/authorized_keys": ["file 0600 1000:1000", f"+ssh-ed25519 {BLOB} x"]}},
            "a key that was not asked for",
        ),
    ],
)
def test_what_does_not_hold_is_found(changes: dict[str, object], found: str) -> None:
    assert any(found in line for line in judged(**changes))


def test_readers_withstand_a_sample() -> None:
    for tried in attack_readers(7, 25):
        assert tried.times >= 20
        assert not tried.broken


@pytest.mark.skipif(os.geteuid() != 0, reason="an adversary is another user, which takes root")
def test_runs_withstand_a_sample() -> None:
    chosen = [*attacks(7, 2, 0), *(attack for attack in attacks(7, 0, len(PLACES)) if ", his" in attack.kind)]
    with Harness(1, [sys.executable, "-m", "minprov"]) as harness:
        if harness.unavailable:
            pytest.skip(harness.unavailable)
        for attack in chosen:
            assert judge(attack, harness.start(attack.scenario, ADVERSARY).result()).broken == [], attack.kind


def test_the_document_has_a_row_for_each_attack_and_all_held() -> None:
    rows = [line.split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| ")][1:]
    kinds = {row[0].removeprefix("| ") for row in rows}
    assert {attack.kind for attack in attacks(1, 20, 20)} <= kinds
    assert all(row[-1] == "all |" for row in rows)


@pytest.mark.root
def test_an_adversary_swaps_while_the_program_runs(tmp_path: Path) -> None:
    place, count = tmp_path / "place", tmp_path / "count"
    command = [sys.executable, str(ADVERSARY), "1", str(count), str(place), str(tmp_path / "root")]
    with subprocess.Popen(command) as adversary:
        subprocess.run(["sh", "-c", "sleep 1; true", "sh", "-m", "minprov"], check=True)
        adversary.terminate()
    assert int(count.read_text()) > 0
