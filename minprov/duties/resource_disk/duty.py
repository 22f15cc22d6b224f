"""What the duty does at a boot: time-outs, the temporary disk, the swap file on it; each under its own policy.

Each is looked at, brought about, and looked at again. One that fails stops none of the others.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from minprov import __version__
from minprov.actions import Policy
from minprov.definitions import NamedTuple
from minprov.duties.resource_disk import disk, swap, timeouts
from minprov.duties.resource_disk.disk import Here
from minprov.duties.resource_disk.settings import Options
from minprov.errors import ProvisioningError, Reason
from minprov.limits import ANOTHER_RUN_PAUSE, DISK_LIMIT, DISK_POLL, DISK_RUN_LIMIT
from minprov.machine.duty_record import path_of, shown_error, write_record
from minprov.machine.system import System
from minprov.outcome.result import ActionResult, State
from minprov.properties.inspection import Inspection

logger = logging.getLogger(__name__)

SCHEMA = "minprov/resource-disk/1"
PROGRAM, LOCK = "resource-disk", "resource-disk.lock"

Inspect: TypeAlias = Callable[[Options, Here], Coroutine[Any, Any, Inspection]]
Converge: TypeAlias = Callable[[Options, Here], Coroutine[Any, Any, None]]


class Step(NamedTuple):
    """One of the things that are done, in the way of a property."""

    action: str
    policy: Policy
    target: str
    inspect: Inspect
    converge: Converge


def steps(options: Options) -> list[Step]:
    """Return what is to be done, in its order; what is off is not among it."""
    every = [
        Step("disk-timeouts", options.timeouts, options.rules_file, timeouts.inspect, timeouts.converge),
        Step("resource-disk", options.resource_disk, options.mount_point, disk.inspect, disk.converge),
        Step("swap", options.swap, f"{options.mount_point}/{swap.NAME}", swap.inspect, swap.converge),
    ]
    return [step for step in every if step.policy is not Policy.OFF]


async def run(options: Options, here: Here, *, dry_run: bool) -> list[ActionResult]:
    """Do what is to be done, or say what that would be."""
    if not dry_run:
        with_lock = await _take_lock(here)
        try:
            _wait_for_disk(options, here)
            return [await _carry_out(step, options, here, dry_run=False) for step in steps(options)]
        finally:
            os.close(with_lock)
    return [await _carry_out(step, options, here, dry_run=True) for step in steps(options)]


async def _carry_out(step: Step, options: Options, here: Here, *, dry_run: bool) -> ActionResult:
    try:
        before = await step.inspect(options, here)
        if before.holds or dry_run:
            state, verified = (State.UNCHANGED, True) if before.holds else (State.PLANNED, None)
            return ActionResult(step.action, step.target, step.policy, state, before.present, verified)
        logger.info("%s: %s", step.action, before.present)
        await step.converge(options, here)
        after = await step.inspect(options, here)
        if not after.holds:
            raise ProvisioningError(Reason.READ_BACK, property=step.action, detail=after.present)
    except ProvisioningError as error:
        logger.warning("%s failed: %s", step.action, error)
        return ActionResult(step.action, step.target, step.policy, State.FAILED, str(error), error=error)
    return ActionResult(step.action, step.target, step.policy, State.CHANGED, before.present, verified=True)


def failure(results: list[ActionResult]) -> ProvisioningError | None:
    """Return the error of the first required step that failed."""
    failed = (result.error for result in results if result.policy is Policy.REQUIRED)
    return next((error for error in failed if error), None)


def to_document(results: list[ActionResult]) -> dict[str, Any]:
    """Return what came of it as the document that `--json` prints and that is kept as a record."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "actions": [
            {
                "action": result.action,
                "target": result.target,
                "state": result.state.value,
                "policy": result.policy.value,
                "verified": result.verified,
                "detail": result.detail,
                "error": shown_error(result.error),
            }
            for result in results
        ],
        "error": shown_error(failure(results)),
    }


async def store(document: dict[str, Any], here: Here) -> None:
    """Keep the record; on a system whose state cannot be written there is none."""
    try:
        await write_record(System(), path_of(here.state_dir, PROGRAM), document)
    except ProvisioningError as error:
        logger.warning("record not stored: %s", error)


async def _take_lock(here: Here) -> int:
    """Wait for another run to end: what it has done holds then."""
    path = f"{here.state_dir}/{LOCK}"
    try:
        os.makedirs(here.state_dir, 0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ProvisioningError(Reason.WRITE_FAILED, path=path, detail=error.strerror) from error
    deadline = time.monotonic() + DISK_RUN_LIMIT
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    detail = "another run is at work"
                    raise ProvisioningError(Reason.RESOURCE_DISK_IN_USE, detail=detail, path=path) from error
            await asyncio.sleep(ANOTHER_RUN_PAUSE)
    except BaseException:
        os.close(descriptor)
        raise


def _wait_for_disk(options: Options, here: Here) -> None:
    """Give a disk that a VM needs a moment to appear, where it has a name, or there is a bus for it."""
    buses = (f"{here.sysfs}/bus/vmbus", f"{here.sysfs}/class/nvme")
    if options.resource_disk is not Policy.REQUIRED or not (options.device or any(map(os.path.isdir, buses))):
        return
    deadline = time.monotonic() + DISK_LIMIT
    while disk.find(options, here) is None and time.monotonic() < deadline:
        time.sleep(DISK_POLL)
