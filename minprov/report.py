"""What minprov tells the platform and people: health documents and the report on one line.

Pure: values in, bytes or text out; sending them is the business of others. Values are foreign (a tool's message, a name
from the media), so each is made harmless where it is put in. Secrets never come here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from minprov.model import GoalState

State: TypeAlias = Literal["Ready", "NotReady"]
Substatus: TypeAlias = Literal["Provisioning", "ProvisioningFailed"]


class _Replacements(dict[int, str]):
    """For `str.translate`: its own replacements, and one for each character that XML has no place for.

    XML 1.0 §2.2: no control characters but three, no halves of surrogate pairs, no U+FFFE and U+FFFF. A table of them,
    or a regular expression, takes milliseconds of the boot.
    """

    def __missing__(self, code: int) -> int | str:
        legal = code in (0x09, 0x0A, 0x0D) or (code >= 0x20 and not 0xD800 <= code < 0xE000 and code & ~1 != 0xFFFE)
        return code if legal else "\N{REPLACEMENT CHARACTER}"


REPLACEMENTS = _Replacements()
# A carriage return would be read back as a line feed (XML 1.0 §2.11).
XML_ESCAPES = _Replacements(str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}))

# The platform answers 500 to a longer description (WALinuxAgent#2017). In which unit is not known: bytes are the safe
# reading, and leave room in a KVP record.
ORDINARY_VM = "None"
"""What azure-init's report calls the pps_type of a VM that is not pooled: libazureinit-kvp, report.rs."""
REPORT_MAX_BYTES = 512
HELP_URL = "https://aka.ms/linuxprovisioningerror"
SHORTEST_VALUE = 16  # cut below this, it says nothing


def build_health_xml(
    goal_state: GoalState, *, state: State, substatus: Substatus | None = None, description: str | None = None
) -> bytes:
    """Return the health document for the documented channel, as cloud-init and WALinuxAgent post it."""
    details = ""
    if substatus is not None:
        details = (
            f"<Details><SubStatus>{_xml(substatus)}</SubStatus>"
            f"<Description>{_xml(description or '')}</Description></Details>"
        )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        "<Health>"
        f"<GoalStateIncarnation>{_xml(goal_state.incarnation)}</GoalStateIncarnation>"
        "<Container>"
        f"<ContainerId>{_xml(goal_state.container_id)}</ContainerId>"
        "<RoleInstanceList><Role>"
        f"<InstanceId>{_xml(goal_state.instance_id)}</InstanceId>"
        f"<Health><State>{_xml(state)}</State>{details}</Health>"
        "</Role></RoleInstanceList>"
        "</Container>"
        "</Health>"
    ).encode()


def build_health_json(*, state: State, substatus: Substatus | None = None, description: str | None = None) -> bytes:
    """Return the health document for the second channel, as azure-init posts it."""
    document: dict[str, object] = {"state": state}
    if substatus is not None:
        document["details"] = {"subStatus": substatus, "description": (description or "").translate(REPLACEMENTS)}
    return json.dumps(document).encode()


def encode_success(*, agent: str, vm_id: str, timestamp: str, pps_type: str = ORDINARY_VM) -> str:
    """Return the report of a run that succeeded, for KVP."""
    fields = [f"agent={agent}", f"pps_type={pps_type}", f"vm_id={vm_id}", f"timestamp={timestamp}"]
    return _encode(["result=success", *fields])


def encode_failure(
    reason_phrase: str,
    supporting_data: Mapping[str, str],
    *,
    agent: str,
    vm_id: str,
    timestamp: str,
    pps_type: str = ORDINARY_VM,
    limit: int = REPORT_MAX_BYTES,
) -> str:
    """Return the report of a run that failed, for every channel: one line of at most `limit` UTF-8 bytes.

    The reason comes first. Where it is too long, the longest values of the supporting data are cut; when all are short,
    its last fields are left out.
    """
    head = ["result=error", f"reason={reason_phrase}", f"agent={agent}"]
    tail = [f"pps_type={pps_type}", f"vm_id={vm_id}", f"timestamp={timestamp}", f"documentation_url={HELP_URL}"]
    lengths = {key: min(len(value), limit) for key, value in supporting_data.items()}
    while True:
        data = [f"{key}={_cut(supporting_data[key], length)}" for key, length in lengths.items()]
        report = _encode([*head, *data, *tail])
        excess = len(report.encode()) - limit
        if excess <= 0 or not lengths:
            return report
        longest = max(lengths, key=lengths.__getitem__)
        if lengths[longest] > SHORTEST_VALUE:
            # A character has up to four bytes.
            lengths[longest] = max(SHORTEST_VALUE, lengths[longest] - max(1, excess // 4))
        else:
            lengths.popitem()


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _encode(fields: Iterable[str]) -> str:
    """Join fields as cloud-init does (`sources/azure/errors.py`): csv with `|` between and `'` around where needed."""
    return "|".join(_quoted("".join(c if c.isprintable() else " " for c in field)) for field in fields)


def _quoted(field: str) -> str:
    if "|" in field or "'" in field:
        return "'" + field.replace("'", "''") + "'"
    return field


def _xml(text: str) -> str:
    return text.translate(XML_ESCAPES)
