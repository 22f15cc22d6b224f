"""After a deprovisioning that is killed somebody can log in, as before or provisioned anew; the next one finishes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from minprov.emulator.tables import read_table

if TYPE_CHECKING:
    from tests.harness.client import Harness

CASES = Path(__file__).parent / "cases"
ROUND_TRIP = CASES / "deprovision-then-another-user/case.toml"
LOGS_IN = ["by key: azureuser logs in, sudo: root"]
# System calls by which the command, and the tools that it runs, change something: before which of them it is killed.
CUTS = [
    *[("unlinkat", number) for number in range(1, 21, 3)],
    *[("rename", 1), ("rename", 2), ("ftruncate", 1), ("unlink", 1), ("fsync", 2), ("fsync", 9), ("fsync", 12)],
]


@pytest.mark.root
@pytest.mark.parametrize(("call", "number"), CUTS)
def test_a_cut(call: str, number: int, harness: Harness) -> None:
    table: dict[str, Any] = read_table(ROUND_TRIP)
    log_in = read_table(CASES / "login-account-locked/case.toml")
    deprovision, another = table["again"]
    nothing = {"inject": "-e trace=none"}
    case = {
        **{key: table[key] for key in ("rule", "prepare", "after")},
        **{key: log_in[key] for key in ("vm", "without")},
        "again": [
            {**deprovision, "inject": f"-e inject={call}:signal=KILL:when={number}"},
            {"arguments": [], "json": True, **nothing, "after": "log-in key"},
            {**deprovision, **nothing},
            {**another, **nothing},
        ],
    }
    result = harness.start(case, ROUND_TRIP).result()
    if reason := result.get("unavailable"):
        pytest.skip(reason)
    assert "broken" not in result, result["broken"]
    _, killed, provisioned, finished, other = result["observed"]
    print("\n".join(result["log"]))
    assert killed["exit_status"] != 0, "it did not come by there"
    assert provisioned["exit_status"] == 0
    assert provisioned["outcome"] in ("provisioned", "already-provisioned")
    assert provisioned["after"] == LOGS_IN
    # Nothing of the first VM is there but what was named: the differences from the image are those without a cut.
    expected = [line for line in finished["after"] if line.startswith(("<", ">"))]
    assert all("/etc/hostname" in line for line in expected), expected
    assert (finished["exit_status"], finished["after"][-1], other["outcome"]) == (0, "0", "provisioned")
