"""A disk that fails is a failure with its reason, and never an empty one; the system boots on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minprov.errors import Reason
from tests.duties.test_decisions import fill

ROOT = Path(__file__).parents[2]
FRESH, BLANK = "dos 7; fresh 1", "true"
MIB = 1 << 20

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


def run(image: Path, at: int, operations: str, policy: str = "required") -> tuple[int, dict[str, Any]]:
    module: list[str | Path] = [sys.executable, "-m", "tests.duties.failing_disk", image, str(at), operations, policy]
    command: list[str | Path] = ["unshare", "--mount", "--propagation", "private", *module]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(
    ("holds", "at", "operations", "said"),
    [
        pytest.param(FRESH, 0, "read,write", "Input/output error", id="dead"),
        # libblkid finds nothing where it cannot read, and says no more.
        pytest.param(FRESH, 60 * MIB, "read,write", "Input/output error", id="unreadable from the middle on"),
        pytest.param(BLANK, 60 * MIB, "read", "Input/output error", id="blank as far as it can be read"),
        pytest.param(FRESH, MIB, "write", "Input/output error", id="its boot sector cannot be written"),
        pytest.param(FRESH, 2 * MIB, "write", "mkfs.ext4", id="mkfs cannot write"),
        pytest.param(FRESH, 60 * MIB, "write", "mkfs.ext4", id="mkfs cannot write the end"),
    ],
)
def test_a_failing_disk_is_not_usable(holds: str, at: int, operations: str, said: str, tmp_path: Path) -> None:
    status, document = run(fill(tmp_path, {"holds": holds}), at, operations)
    assert status == Reason.RESOURCE_DISK_NOT_USABLE.exit_status
    assert document["error"]["reason"] == Reason.RESOURCE_DISK_NOT_USABLE.phrase
    assert said in str(document["error"])


def test_the_system_boots_on_with_the_reason_in_the_record(tmp_path: Path) -> None:
    status, document = run(fill(tmp_path, {"holds": FRESH}), MIB, "read,write", "best-effort")
    assert (status, document["error"]) == (0, None)
    record = json.loads((tmp_path / "state/resource-disk.json").read_text())
    reasons = [action["error"]["reason"] for action in record["actions"]]
    assert reasons == [Reason.RESOURCE_DISK_NOT_USABLE.phrase, Reason.SWAP_NOT_ACTIVE.phrase]


def test_signatures_that_cannot_be_read_are_not_absent_after_an_interrupted_run(tmp_path: Path) -> None:
    """What a run has begun is made again where nothing is on it, which nobody can tell here."""
    image = fill(tmp_path, {"holds": FRESH})
    run(image, 2 * MIB, "write")
    assert (tmp_path / "state/resource-disk.journal").exists()
    status, document = run(image, 2 * MIB, "read")
    assert status == Reason.RESOURCE_DISK_NOT_USABLE.exit_status
    assert "mkfs" not in str(document["error"])
