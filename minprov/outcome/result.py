"""What a run came to, as a value and as the JSON document of `minprov/result/1`."""

import logging
from typing import TYPE_CHECKING, Any

from minprov import __version__
from minprov.actions import Policy
from minprov.definitions import Enum, NamedTuple
from minprov.errors import ProvisioningError
from minprov.model import Secret

if TYPE_CHECKING:
    from minprov.config import Duty
    from minprov.outcome.timeline import Span
    from minprov.plan import Plan

SCHEMA = "minprov/result/1"
MAX_NOTES, MAX_ITEMS, MAX_SHOWN = 50, 50, 600
"""Of what others can make as long as they like, how much is kept or shown."""

logger = logging.getLogger(__name__)


class State(Enum):
    """What became of an action."""

    PLANNED = "planned"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    OFF = "off"


class ActionResult(NamedTuple):
    """What became of a step, in words that hold no secret; `error` is there when it failed.

    `verified` is what the read-back came to: None where nobody could be asked, or nothing was done yet.
    """

    action: str
    target: str
    policy: Policy
    state: State
    detail: str
    verified: bool | None = None
    error: ProvisioningError | None = None
    notes: tuple[str, ...] = ()


class Outcome(Enum):
    """How a run ended."""

    PLANNED = "planned"
    PROVISIONED = "provisioned"
    ALREADY_PROVISIONED = "already-provisioned"
    NOTHING_ASKED = "nothing-asked"
    IN_POOL = "in-pool"
    FAILED = "failed"


class SourceState(Enum):
    """What became of asking a source."""

    FOUND = "found"
    MISSING = "missing"
    FAILED = "failed"
    SKIPPED = "skipped"


class Source(NamedTuple):
    """A source's state and the reason for it in a person's words."""

    state: SourceState
    detail: str


NOT_ASKED = Source(state=SourceState.SKIPPED, detail="not asked")


class Result:
    """Filled in as the run goes on, so that a report can be made of it at any moment."""

    def __init__(
        self,
        *,
        outcome: Outcome = Outcome.FAILED,
        vm_id: str | None = None,
        spans: "list[Span] | None" = None,
        error: ProvisioningError | None = None,
    ) -> None:
        self.outcome = outcome
        self.vm_id = vm_id
        self.media = self.imds = self.goal_state = NOT_ASKED
        self.plan: Plan | None = None
        self.actions: tuple[ActionResult, ...] = ()
        self.notes: list[str] = []
        self.host_keys: tuple[str, ...] = ()
        self.duties: tuple[Duty, ...] = ()
        self.reported: str | None = None
        self.is_untold = False
        """Whether there is a failure that the platform should have been told of, and was not."""
        self.channel: str | None = None
        self.attempts = 0
        self.spans = spans if spans is not None else []
        self.error = error

    def note(self, text: str, *, level: int = logging.WARNING) -> None:
        """Keep, and log, what a reader should know although nothing failed for it; `MAX_NOTES` at most."""
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(text)
            logger.log(level, "%s", text)


def to_document(result: Result) -> dict[str, Any]:
    """Return the result as the JSON document that `--json` prints and report.json holds; it shows no secret."""
    error = result.error
    return {
        "schema": SCHEMA,
        "outcome": result.outcome.value,
        "version": __version__,
        "vm_id": result.vm_id,
        "sources": {
            name: {"state": source.state.value, "detail": source.detail}
            for name, source in (("media", result.media), ("imds", result.imds), ("goal_state", result.goal_state))
        },
        "properties": shown_properties(result.plan) if result.plan else {},
        "differences": result.plan and _listed(result.plan.differences),
        "notes": result.notes,
        "host_keys": list(result.host_keys),
        "duties": [
            {"duty": duty.table, "policy": duty.policy.value, "program": f"minprov {duty.program}"}
            for duty in result.duties
        ],
        "actions": [
            {
                "action": action.action,
                "target": action.target,
                "state": action.state.value,
                "policy": action.policy.value,
                "verified": action.verified,
                "detail": action.detail,
            }
            for action in result.actions
        ],
        "health": {"reported": result.reported, "channel": result.channel, "attempts": result.attempts},
        "timings": [
            {"name": span.name, "kind": span.kind, "start_ms": span.start_ms, "end_ms": span.end_ms}
            | ({"outcome": span.outcome} if span.outcome else {})
            | ({"requests": span.requests} if span.requests > 1 else {})
            for span in result.spans
        ],
        "error": error and {"reason": error.reason.phrase, "data": error.data, "exit_status": error.reason.exit_status},
    }


def shown_properties(plan: "Plan") -> dict[str, dict[str, Any]]:
    """Return the properties that have a value, each with the value as it may be shown and its source."""
    chosen = {name: found for name, found in plan.properties._asdict().items() if found is not None}
    return {name: {"value": _shown(found.value), "from": found.source} for name, found in chosen.items()}


def _listed(items: "tuple[str, ...] | None") -> list[str] | None:
    return None if items is None else list(items)


def _shown(value: object) -> object:
    # customData often holds credentials: its size is all that is ever shown.
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, tuple):
        return [_shown(item) for item in value[:MAX_ITEMS]]
    if isinstance(value, str):
        return value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}…"
    return str(value) if isinstance(value, Secret) else value


def shorten(value: object, longest: int, most: int) -> object:
    """Return a part of a document with its texts cut to `longest` characters and its lists to `most` items."""
    if isinstance(value, dict):
        return {key: shorten(item, longest, most) for key, item in value.items()}
    if isinstance(value, list):
        return [shorten(item, longest, most) for item in value[:most]]
    if isinstance(value, str) and len(value) > longest:
        return f"{value[:longest]}…"
    return value
