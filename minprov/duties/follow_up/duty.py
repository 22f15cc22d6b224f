"""What is told and asked once the VM is ready: each under its own policy, and no failure of it is the VM's."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable
from typing import Any

from minprov import __version__
from minprov.actions import Policy
from minprov.duties.follow_up import dns_check, role_properties
from minprov.duties.follow_up.settings import Options
from minprov.errors import ProvisioningError
from minprov.machine.duty_record import path_of, read_record, shown_error, write_record
from minprov.machine.system import System

logger = logging.getLogger(__name__)

SCHEMA = "minprov/follow-up/1"
PROGRAM = "follow-up"
NO_KEY = "sshd has no host key"


async def run(options: Options, base_url: str, state_dir: str, vm_id: str | None, *, dry_run: bool) -> dict[str, Any]:
    """Do what is switched on, or say what that would be; return the record.

    Raises:
        ProvisioningError: NOT_PERMITTED, WRITE_FAILED of the record.

    """
    system, path = System(look_only=dry_run), path_of(state_dir, PROGRAM)
    told = read_record(system, path).get("told")
    actions = []
    if options.role_properties is not Policy.OFF:
        value = role_properties.find_value(system)
        telling = {"vm_id": vm_id, "value": value}
        if value is None or telling == told:
            actions.append(_action("role-properties", "unchanged", value or NO_KEY))
        elif dry_run:
            actions.append(_action("role-properties", "planned", value))
        else:
            actions.append(await _done("role-properties", _tell(base_url, value)))
            told = telling if actions[-1]["state"] == "changed" else told
    if options.dns_check is not Policy.OFF:
        asking = dns_check.check(os.uname().nodename, dns_check.find_domain(system))
        actions.append(await _done("dns-check", asking, state="unchanged"))
    record = {"schema": SCHEMA, "version": __version__, "actions": actions, "error": None}
    if not dry_run:
        await write_record(system, path, record | {"told": told})
    return record


async def _tell(base_url: str, value: str) -> str:
    await role_properties.post(base_url, value)
    return value


async def _done(name: str, work: Awaitable[str], state: str = "changed") -> dict[str, Any]:
    try:
        return _action(name, state, await work)
    except ProvisioningError as error:
        logger.warning("%s: %s", name, error)
        return _action(name, "failed", str(error), error)


def _action(name: str, state: str, detail: str, error: ProvisioningError | None = None) -> dict[str, Any]:
    verified = {"planned": None, "failed": False}.get(state, True)
    return {
        "action": name,
        "target": "the platform",
        "state": state,
        "policy": Policy.BEST_EFFORT.value,
        "verified": verified,
        "detail": detail,
        "error": shown_error(error),
    }
