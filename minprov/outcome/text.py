"""A result document as text made to be read: what is, what would be, and from which source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

WIDTH = 110
HEADINGS = {
    "planned": "dry run: nothing is written, nothing is posted",
    "provisioned": "provisioned",
    "already-provisioned": "already provisioned",
    "nothing-asked": "nothing was asked for",
    "in-pool": "in the platform's pool, waiting for its owner",
    "failed": "failed",
}
STATES = {
    "planned": "would change",
    "changed": "changed",
    "unchanged": "holds already",
    "failed": "failed",
    "off": "switched off",
}
UNVERIFIED = {"changed": "written, not verified", "unchanged": "holds already, not verified"}


def render(document: dict[str, Any]) -> str:
    """Return the text for a document of `minprov/result/1`."""
    lines = [f"minprov {document['version']}, {HEADINGS[document['outcome']]}"]
    if document["vm_id"]:
        lines.append(f"VM id {document['vm_id']}")
    sources = document["sources"].items()
    lines += ["", "Sources", *_table((words(name), found["state"], found["detail"]) for name, found in sources)]
    if document["properties"]:
        properties = document["properties"].items()
        rows = ((words(name), f"from {found['from']}", flat(found["value"])) for name, found in properties)
        lines += ["", "Properties", *_table(rows)]
        if document["differences"] is None:
            lines.append("  (not compared: only one of the sources has answered)")
        lines += [f"  ! the sources differ on {difference}" for difference in document["differences"] or ()]
    if document["actions"]:
        lines += ["", "Actions", render_actions(document["actions"])]
    if duties := document.get("duties"):  # reports of earlier versions have none
        rows = ((item["duty"], item["policy"], _when(item)) for item in duties)
        lines += ["", "Duties", *_table(rows)]
    if document["notes"]:
        lines += ["", "Notes", *(f"  {note}" for note in document["notes"])]
    if host_keys := document.get("host_keys"):  # reports of earlier versions have none
        lines += ["", "Host keys", *(f"  {fingerprint}" for fingerprint in host_keys)]
    health = document["health"]
    if health["reported"]:
        lines += ["", f"Reported {health['reported']} by {health['channel']}, attempts: {health['attempts']}"]
    elif document["outcome"] == "planned":
        lines += ["", "Then, with every action read back, Ready would be reported."]
    if document["error"]:
        data = ", ".join(f"{key}={value}" for key, value in document["error"]["data"].items())
        lines += ["", f"Failed: {document['error']['reason']}" + (f": {data}" if data else "")]
    return "\n".join(lines)


def render_actions(actions: Iterable[dict[str, Any]]) -> str:
    """Return a line for each action of a document."""
    rows = ((item["action"], action_state(item), f"{item['target']}: {item['detail']}") for item in actions)
    return "\n".join(_table(rows))


def _when(duty: dict[str, Any]) -> str:
    before = "before Ready and " if duty["policy"] == "required" else ""
    return f"{before}at every boot, by `{duty['program']}`"


def action_state(item: dict[str, Any]) -> str:
    """Return what became of an action, in words."""
    # `status` also shows reports of versions that did not tell.
    if item["state"] in UNVERIFIED and item.get("verified", True) is None:
        return UNVERIFIED[item["state"]]
    return STATES[item["state"]]


def words(name: str) -> str:
    """Return a key of the document as words."""
    return name.replace("_", " ")


def flat(value: object) -> str:
    """Return a value of the document on one line."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    listed = list(rows)
    first, second = (max((len(row[column]) for row in listed), default=0) for column in (0, 1))
    for name, state, text in listed:
        line = f"  {name:<{first}}  {state:<{second}}  {text}"
        yield line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
