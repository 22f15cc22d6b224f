"""What goes wrong, read from a TOML file: for each endpoint a sequence of steps, for each server when it listens.

    [imds]                         # a server: imds, wireserver, host-plugin
    refuse = 2.5                   # nothing listens for that many seconds; true: for ever
    ignore = true                  # connections are not answered at all, as without a route; or seconds
    from-first-request = true      # the seconds count from the guest's first request to another server
    limit = 5                      # more requests in a second are answered 429
    signed-only = true             # requests that no guest proxy agent signed are answered 401

    [[goal-state]]                 # an endpoint; one table per step, taken in order, one request each
    status = 503
    headers = { Retry-After = "1" }
    times = 3                      # or "forever"; then the next step, and after the last one: as normal

Every key of a step is a change to the reply or to its journey and can be combined with any other; docs/emulator.md has
the table. This module only reads the file: `delivery` does the damage.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from minprov.errors import ProvisioningError, Reason

from .tables import content, convert_table, flag, number, read_table, seconds, text, text_table, unknown_key
from .vm import VM_CONVERTERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .tables import Convert

SERVERS = ("imds", "wireserver", "host-plugin")
ENDPOINTS = (
    "instance",
    "imds-versions",
    "reprovisiondata",
    "versions",
    "goal-state",
    "health",
    "provisioning-health",
    "role-properties",
    "telemetry",
    "health-service",
    "certificates",
    "hosting-environment-config",
    "shared-config",
    "extensions-config",
    "full-config",
    "host-plugin-versions",
    "host-plugin-health",
    "host-plugin-status",
    "host-plugin-log",
    "vm-settings",
    "extension-artifact",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFaults:
    """When a server starts to listen, what meets a connection until then, and which requests it takes."""

    listen_after: float = 0.0
    from_first_request: bool = False
    until_then: Literal["refuse", "ignore"] = "refuse"
    limit: int | None = None
    signed_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is done to the reply of one request."""

    times: float = 1
    change: Mapping[str, Any] = field(default_factory=dict)
    heard: bool | None = None
    delay: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    replace: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    pad: int = 0
    gzip: bool = False
    chunked: bool = False
    drip: float | None = None
    raw: bytes | None = None
    truncate: int | None = None
    drop: Literal["close", "reset", "stall"] | None = None
    endless: Literal["headers", "trailers"] | None = None

    @property
    def is_heard(self) -> bool:
        """Tell whether the platform takes notice of the request: unless said, not if the reply is not its own."""
        if self.heard is not None:
            return self.heard
        lost = self.drop is not None and self.truncate is None
        own = self.status is None and self.body is None and self.raw is None and self.endless is None
        return own and not lost


NO_STEP = Step()


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """All that goes wrong: `servers` and `steps` by the names of servers and endpoints."""

    servers: Mapping[str, ServerFaults] = field(default_factory=dict)
    steps: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)

    def step(self, endpoint: str | None, earlier: int) -> Step:
        """Return the step for a request to an endpoint that has had so many before."""
        for step in self.steps.get(endpoint or "", ()):
            if earlier < step.times:
                return step
            earlier -= int(step.times)
        return NO_STEP


NO_FAULTS = Faults()


def load_faults(path: str | Path) -> Faults:
    """Read a fault script.

    Raises: ProvisioningError(CONFIG_INVALID), naming the file and the key.
    """
    file = Path(path)
    return parse_faults(read_table(file), file=file)


def parse_faults(table: Mapping[str, object], *, file: Path) -> Faults:
    """Return the fault script that a table is; `file` is named in errors, and its folder has the files it refers to.

    Raises: ProvisioningError(CONFIG_INVALID), naming the file and the key.
    """
    servers: dict[str, ServerFaults] = {}
    steps: dict[str, tuple[Step, ...]] = {}
    for name, value in table.items():
        if name in SERVERS and isinstance(value, dict):
            servers[name] = _server(cast("dict[str, object]", value), file=file, place=name)
        elif name in ENDPOINTS and isinstance(value, list):
            steps[name] = tuple(_step(step, file=file, place=f"{name}[{index}]") for index, step in enumerate(value))
        elif name in SERVERS + ENDPOINTS:
            form = f"[{name}]" if name in SERVERS else f"[[{name}]]"
            raise ProvisioningError(Reason.CONFIG_INVALID, file=file, key=name, detail=f"must be written as {form}")
        else:
            raise unknown_key(name, SERVERS + ENDPOINTS, file=file)
    return Faults(servers=servers, steps=steps)


def _server(table: dict[str, object], *, file: Path, place: str) -> ServerFaults:
    values = convert_table(table, _SERVER_CONVERTERS, file=file, within=f"{place}.")
    if "refuse" in values and "ignore" in values:
        detail = "a server either refuses or ignores"
        raise ProvisioningError(Reason.CONFIG_INVALID, file=file, key=f"{place}.ignore", detail=detail)
    return ServerFaults(
        listen_after=values.get("refuse", values.get("ignore", 0.0)),
        from_first_request=values.get("from_first_request", False),
        until_then="ignore" if "ignore" in values else "refuse",
        limit=values.get("limit"),
        signed_only=values.get("signed_only", False),
    )


def _step(table: object, *, file: Path, place: str) -> Step:
    if not isinstance(table, dict):
        raise ProvisioningError(Reason.CONFIG_INVALID, file=file, key=place, detail="must be a table")
    values = convert_table(cast("dict[str, object]", table), _STEP_CONVERTERS, file=file, within=f"{place}.")
    if "change" in values:
        values["change"] = convert_table(values["change"], VM_CONVERTERS, file=file, within=f"{place}.change.")
    return Step(**values)


def _duration(value: object, directory: Path) -> float:
    """Convert seconds, or ``true`` for ever."""
    return math.inf if value is True else seconds(value, directory)


def _times(value: object, directory: Path) -> float:
    return math.inf if value == "forever" else number(value, directory)


def _status(value: object, directory: Path) -> int:
    status = number(value, directory)
    if not 200 <= status <= 599:
        raise ValueError("must be from 200 to 599")
    return status


def _body(value: object, directory: Path) -> bytes:
    match value:
        case {"garbage": int(size), **rest} if not rest:
            return random.Random(size).randbytes(size)  # noqa: S311  # the same noise in every run
    return content(value, directory)


def _drop(value: object, directory: Path) -> str:
    drop = text(value, directory)
    if drop not in {"close", "reset", "stall"}:
        raise ValueError("must be close, reset or stall")
    return drop


def _endless(value: object, directory: Path) -> str:
    part = text(value, directory)
    if part not in {"headers", "trailers"}:
        raise ValueError("must be headers or trailers")
    return part


def _table(value: object, _directory: Path) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError("must be a table")
    return cast("dict[str, object]", value)


_SERVER_CONVERTERS: Mapping[str, Convert] = {
    "refuse": _duration,
    "ignore": _duration,
    "from_first_request": flag,
    "limit": number,
    "signed_only": flag,
}

_STEP_CONVERTERS: Mapping[str, Convert] = {
    "times": _times,
    "change": _table,
    "heard": flag,
    "delay": seconds,
    "status": _status,
    "headers": text_table,
    "replace": text_table,
    "body": _body,
    "pad": number,
    "gzip": flag,
    "chunked": flag,
    "drip": seconds,
    "raw": content,
    "truncate": number,
    "drop": _drop,
    "endless": _endless,
}
