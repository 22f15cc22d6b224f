"""The fault campaign: campaign.toml -> cases, with what has to come of them."""

from __future__ import annotations

import fnmatch
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minprov.emulator.tables import read_table
from tests.harness.client import Harness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

CAMPAIGN = Path(__file__).parent / "campaign.toml"
MACHINES = 6
"""Machines at a time: most cases wait for most of their time."""
NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What has to come of a case."""

    exit: int
    told: str
    within: float
    reason: str | None = None

    @property
    def outcome(self) -> str:
        """Return the outcome as the result document has it."""
        return "failed" if self.exit else "provisioned"

    @property
    def report(self) -> str:
        """Return the last health report that the platform took: channel, state and, of a failure, reason."""
        return f"{self.told}, {self.reason}" if self.told.endswith("NotReady") else self.told


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultCase:
    """A case by its name: the scenario, and what has to come of it."""

    name: str
    scenario: Mapping[str, object]
    expected: Expectation

    @property
    def place(self) -> str:
        """Return where it goes wrong."""
        return self.name.partition("/")[0]

    @property
    def fault(self) -> str:
        """Return what goes wrong there."""
        return self.name.partition("/")[2]

    def start(self, harness: Harness) -> Future[dict[str, Any]]:
        """Have it run as soon as there is a machine for it."""
        return harness.start(dict(self.scenario), CAMPAIGN)

    def judge(self, result: dict[str, Any]) -> list[str]:
        """Return in what the result is not what was expected."""
        if "observed" not in result:
            return [str(result.get("broken") or result.get("unavailable"))]
        (observed,) = result["observed"]
        seen = {
            "health report": (observed["health"][-1] if observed["health"] else NOTHING, self.expected.report),
            "exit status": (observed["exit_status"], self.expected.exit),
        }
        if self.scenario.get("json", True):
            seen["outcome"] = (observed.get("outcome"), self.expected.outcome)
            seen["reason"] = (observed.get("reason"), self.expected.reason)
        differences = [(key, *values) for key, values in seen.items() if values[0] != values[1]]
        return [*result["faults"], *(f"{key}: {actual}, expected: {wanted}" for key, actual, wanted in differences)]


def machines() -> Harness:
    """Return machines to run cases on, as a context manager."""
    return Harness(MACHINES, [sys.executable, "-m", "minprov"])


def load_campaign() -> list[FaultCase]:
    """Return every case, in the order of the file."""
    table: dict[str, Any] = read_table(CAMPAIGN)
    scenarios = dict(itertools.chain(_matrices(table["matrix"]), _singles(table["case"])))
    return [
        FaultCase(name=name, scenario={"rule": name, **scenario, "within": expected.within}, expected=expected)
        for name, scenario in scenarios.items()
        for expected in [_expectation(name, table["expect"])]
    ]


def _matrices(matrices: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    make: dict[str, Callable[..., dict[str, Any]]] = {
        "answers": _answer,
        "connections": _connection,
        "tools": _tool,
        "imports": _import,
    }
    for kind, matrix in matrices.items():
        axes = (matrix["places"].items(), matrix["faults"].items(), matrix["courses"].items())
        for (place, where), (fault, what), (course, how) in itertools.product(*axes):
            name = "/".join(part for part in (place, fault, course) if part)
            yield name, make[kind](place, dict(where), what, dict(how))


def _answer(_place: str, where: dict[str, Any], what: dict[str, Any], how: dict[str, Any]) -> dict[str, Any]:
    endpoint, others = where.pop("endpoint"), where.pop("faults", {})
    return {**where, "arguments": how["arguments"], "faults": {**others, endpoint: [{**what, "times": how["times"]}]}}


def _connection(_place: str, where: dict[str, Any], what: str, how: dict[str, Any]) -> dict[str, Any]:
    server = where.pop("server")
    return {**where, "arguments": how["arguments"], "faults": {server: {what: how["times"]}}}


def _tool(place: str, where: dict[str, Any], what: str, how: dict[str, Any]) -> dict[str, Any]:
    tool = place.removeprefix("tool ")
    return {**where, **how, "prepare": where.get("prepare", "") + "\n" + what.replace("{tool}", tool)}


def _import(_place: str, where: dict[str, Any], what: str, how: dict[str, Any]) -> dict[str, Any]:
    return {**where, **how, "prepare": where["prepare"].replace("{module}", what)}


def _singles(cases: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for case in cases:
        yield case["name"], {key: value for key, value in case.items() if key != "name"}


def _expectation(name: str, rules: list[dict[str, Any]]) -> Expectation:
    values: dict[str, Any] = {}
    for rule in rules:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in rule["match"]):
            values |= {key: value for key, value in rule.items() if key != "match"}
    if values["exit"] == 0:
        values.pop("reason", None)
    return Expectation(**values)
