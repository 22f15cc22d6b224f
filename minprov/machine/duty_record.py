"""What a duty's program came to in this boot: it writes the record, and a run that waits for it reads it.

The record is a document of the duty's own with two keys that are everyone's: `boot_id` and `error`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from minprov.errors import ProvisioningError, Reason

if TYPE_CHECKING:
    from minprov.machine.system import System

BOOT_ID = "/proc/sys/kernel/random/boot_id"  # random(4)
MODE = 0o600


def path_of(state_dir: str, program: str) -> str:
    """Return where the record of a program is kept."""
    return f"{state_dir}/{program}.json"


def read_record(system: System, path: str) -> dict[str, Any]:
    """Return the record of this or an earlier boot; one that is not there or damaged is empty.

    Raises:
        ProvisioningError: NOT_PERMITTED.

    """
    try:
        record = json.loads(system.read(path) or b"{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def is_of_this_boot(system: System, record: dict[str, Any]) -> bool:
    """Tell whether the program has run since the machine was started."""
    return bool(record) and record.get("boot_id") == _boot_id(system)


async def write_record(system: System, path: str, document: dict[str, Any]) -> None:
    """Keep a document, which has an `error` or None, as what the program came to in this boot.

    Raises:
        ProvisioningError: WRITE_FAILED, NOT_PERMITTED.

    """
    record = document | {"boot_id": _boot_id(system)}
    await system.replace_own(path, json.dumps(record, indent=2).encode() + b"\n", mode=MODE)


def shown_error(error: ProvisioningError | None) -> dict[str, Any] | None:
    """Return an error as documents have it."""
    if error is None:
        return None
    return {"reason": error.reason.phrase, "data": error.data, "exit_status": error.reason.exit_status}


def error_in(record: dict[str, Any]) -> ProvisioningError | None:
    """Return the error that a record has: that of the first thing that failed and was required."""
    if not (shown := record.get("error")):
        return None
    reason = next((reason for reason in Reason if reason.phrase == shown["reason"]), Reason.INTERNAL)
    return ProvisioningError(reason, **shown["data"])


def _boot_id(system: System) -> str:
    return system.read_text(BOOT_ID).strip()
