"""Carry out a plan's steps on a system: the only module that has anything changed.

Independent steps run at the same time, each after the steps it needs. A step is: look, bring about, look again; what
held at the first look is left alone, what does not hold at the second is a failure, whatever the tools said. A failed
step takes down those that need it and no others, so that one report tells everything that is wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from minprov.actions import (
    Action,
    CheckProxyAgent,
    ConfigureSshd,
    EjectMedia,
    EnsureHostKeys,
    EnsureUser,
    ExecuteCustomData,
    GrantSudo,
    KeepAccount,
    LockRootPassword,
    Policy,
    PrepareWaagent,
    PublishHostname,
    RunDuty,
    RunHooks,
    SetHostname,
    SetPassword,
    StoreFile,
    UnusableValue,
    WaitInPool,
    WriteAuthorizedKeys,
)
from minprov.deferred import deferred
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System
from minprov.outcome.result import ActionResult, State
from minprov.outcome.timeline import Timeline
from minprov.plan import Step
from minprov.properties import (
    authorized_keys,
    eject_media,
    host_keys,
    hostname,
    password,
    published_hostname,
    root_password,
    sshd,
    stored_file,
    sudo,
    user,
)
from minprov.properties.inspection import Inspection

logger = logging.getLogger(__name__)

Inspect = Callable[[System, Any], Awaitable[Inspection]]
Converge = Callable[[System, Any], Awaitable[None]]


async def _refuse(_system: System, action: UnusableValue) -> Inspection:
    raise ProvisioningError(action.reason, **dict(action.data))


async def _never(_system: System, _action: Action) -> None:
    """Stand for what an action without anything to bring about would do."""


HANDLERS: dict[type[Action], tuple[Inspect, Converge]] = {
    UnusableValue: (_refuse, _never),
    SetHostname: (hostname.inspect, hostname.converge),
    PublishHostname: (published_hostname.inspect, published_hostname.converge),
    EnsureUser: (user.inspect, user.converge),
    SetPassword: (password.inspect, password.converge),
    WriteAuthorizedKeys: (authorized_keys.inspect, authorized_keys.converge),
    EnsureHostKeys: (host_keys.inspect, host_keys.converge),
    ConfigureSshd: (sshd.inspect, sshd.converge),
    GrantSudo: (sudo.inspect, sudo.converge),
    LockRootPassword: (root_password.inspect, root_password.converge),
    StoreFile: (stored_file.inspect, stored_file.converge),
    EjectMedia: (eject_media.inspect, eject_media.converge),
}
# Few plans have these: their modules are loaded with the first step, docs/start-up.md.
SELDOM = ("custom_data_run", "hooks", "kept_account", "pool", "proxy_agent", "required_duty", "waagent")
with deferred(*(f"minprov.properties.{name}" for name in SELDOM)):
    from minprov.properties import custom_data_run, hooks, kept_account, pool, proxy_agent, required_duty, waagent

    HANDLERS |= {
        KeepAccount: (kept_account.inspect, _never),
        CheckProxyAgent: (proxy_agent.inspect, proxy_agent.converge),
        RunDuty: (required_duty.inspect, required_duty.converge),
        RunHooks: (hooks.inspect, hooks.converge),
        WaitInPool: (pool.inspect, _never),
        ExecuteCustomData: (custom_data_run.inspect, custom_data_run.converge),
        PrepareWaagent: (waagent.inspect, waagent.converge),
    }

# sshd -T needs host keys. Password login is not opened before the password is set, nor root given to an account that
# may yet turn out to be refused.
NEEDS: dict[type[Action], tuple[type[Action], ...]] = {
    SetPassword: (EnsureUser,),
    WriteAuthorizedKeys: (EnsureUser, EnsureHostKeys, SetPassword),
    GrantSudo: (EnsureUser,),
    ConfigureSshd: (EnsureHostKeys, SetPassword),
    # Root may be the only way in.
    LockRootPassword: (EnsureUser, SetPassword, WriteAuthorizedKeys, ConfigureSshd, GrantSudo),
    # waagent may be waiting for nothing but this.
    PrepareWaagent: (SetHostname, EnsureUser, SetPassword, WriteAuthorizedKeys, ConfigureSshd, GrantSudo),
    # It may have something for the user, and reads in the ovf-env what.
    RunDuty: (EnsureUser, StoreFile),
    ExecuteCustomData: (SetHostname, EnsureUser, SetPassword, WriteAuthorizedKeys, GrantSudo, StoreFile, RunDuty),
}


async def preview(steps: Sequence[Step], system: System) -> tuple[ActionResult, ...]:
    """Tell what `apply` would do; changes nothing."""
    return tuple([await _preview(step, system) for step in steps])


async def apply(steps: Sequence[Step], system: System, timeline: Timeline) -> tuple[ActionResult, ...]:
    """Carry out the steps and return their results in the same order; a failed one raises nothing."""
    tasks: dict[type[Action], list[asyncio.Task[ActionResult]]] = {}
    async with asyncio.TaskGroup() as group:
        for step in steps:
            kind = type(step.action)
            needed = [task for need in NEEDS.get(kind, ()) for task in tasks.get(need, ())]
            task = group.create_task(_carry_out(step, needed, system, timeline), name=step.name)
            tasks.setdefault(kind, []).append(task)
    results = {task.get_name(): task.result() for group_tasks in tasks.values() for task in group_tasks}
    return tuple(results[step.name] for step in steps)


def first_required_failure(results: Sequence[ActionResult]) -> ProvisioningError | None:
    """Return the error that forbids Ready, if there is one: that of the first failure others did not cause."""
    for result in results:
        if result.error is not None and result.policy is Policy.REQUIRED:
            return result.error
    return None


async def _preview(step: Step, system: System) -> ActionResult:
    if step.policy is Policy.OFF:
        return _result(step, State.OFF, "switched off")
    inspect, _ = HANDLERS[type(step.action)]
    try:
        found = await inspect(system, step.action)
        if not found.holds and step.target.startswith("/"):
            system.check_writable(step.target)
    except ProvisioningError as error:
        return _failed(step, str(error), error)
    if found.holds:
        return _holding(step, State.UNCHANGED, found, found.present, system)
    return _result(step, State.PLANNED, found.present)._replace(notes=found.notes)


async def _carry_out(
    step: Step, needed: Sequence[asyncio.Task[ActionResult]], system: System, timeline: Timeline
) -> ActionResult:
    if step.policy is Policy.OFF:
        return _result(step, State.OFF, "switched off")
    for task in needed:
        result = await task
        if result.error is not None:
            return _failed(step, f"not attempted: {result.action} failed", result.error)
    with timeline.span(step.name), timeline.waiting(step.name):
        try:
            return await _converge(step, system)
        except ProvisioningError as error:
            level = logging.ERROR if step.policy is Policy.REQUIRED else logging.WARNING
            logger.log(level, "%s failed: %s", step.name, error)
            return _failed(step, str(error), error)


async def _converge(step: Step, system: System) -> ActionResult:
    action = step.action
    inspect, converge = HANDLERS[type(action)]
    before = await inspect(system, action)
    if before.holds:
        logger.info("%s: unchanged, %s", step.name, before.present)
        return _holding(step, State.UNCHANGED, before, before.present, system)
    await converge(system, action)
    after = await inspect(system, action)
    if not after.holds:
        raise ProvisioningError(Reason.READ_BACK, action=step.name, target=step.target, found=after.present)
    logger.info("%s: %s, was: %s", step.name, after.present, before.present)
    detail = f"{after.present} (was: {before.present})"
    return _holding(step, State.CHANGED, after, detail, system)


def _holding(step: Step, state: State, found: Inspection, detail: str, system: System) -> ActionResult:
    """Return the result for a property that holds, verified if it was read back from who decides.

    In a tree none of the programs that will decide can be asked; a document is read by nobody but its reader.
    """
    asked = found.verified and (system.live or isinstance(step.action, StoreFile))
    return _result(step, state, detail, verified=True if asked else None)._replace(notes=found.notes)


def _failed(step: Step, detail: str, error: ProvisioningError) -> ActionResult:
    return _result(step, State.FAILED, detail, verified=False)._replace(error=error)


def _result(step: Step, state: State, detail: str, *, verified: bool | None = None) -> ActionResult:
    return ActionResult(
        action=step.name, target=step.target, policy=step.policy, state=state, detail=detail, verified=verified
    )
