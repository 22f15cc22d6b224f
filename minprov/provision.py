"""The one shot: gather, plan, apply, report.

Owns the order of things and the deadline. Applying starts as soon as there is enough to plan with; what arrives later
is planned again, and only what is new is carried out. Ready is posted when every required property was read back and
that fact is on disk. A failure is told on every channel there is, in the time that is left or a little more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from minprov import __version__, announce, state
from minprov.actions import EjectMedia
from minprov.apply import apply, first_required_failure, preview
from minprov.coexistence import refuse_other_provisioners
from minprov.config import Options
from minprov.errors import ProvisioningError, Reason
from minprov.gather import Sources, open_transport
from minprov.identity import Identity
from minprov.plan import Evidence, Plan, Step, plan_provisioning
from minprov.report import encode_failure
from minprov.result import Outcome, Result
from minprov.shacrypt import new_salt
from minprov.system import System, file_error, in_thread
from minprov.timeline import Timeline
from minprov.wire import report_health

if TYPE_CHECKING:
    from minprov.transport import Transport

logger = logging.getLogger(__name__)

FAILURE_GRACE = 5.0
"""Seconds for the failure report itself, which may start when the deadline has passed."""
DRY_RUN_GRACE = 1.0
"""Seconds a dry run waits for a source that the plan does not need, to be able to tell of it."""
EJECT_LIMIT = 5.0
UNKNOWN_VM_ID = "00000000-0000-0000-0000-000000000000"
HEARTBEAT = 10.0
"""Seconds between two lines on the console while something is waited for."""
# After these, Ready may still follow from the next run or from the other provisioner: NotReady would end that.
UNTOLD = frozenset({Reason.REPORT_FAILED, Reason.TERMINATED, Reason.OTHER_PROVISIONER})


class Run:
    """One run on one system, and what it has come to so far; create it in the event loop."""

    def __init__(self, options: Options, system: System, identity: Identity) -> None:
        self._options = options
        self._system = system
        self._identity = identity
        self._timeline = Timeline()
        self._state_dir = system.path(options.state_dir)
        self._deadline = asyncio.get_running_loop().time() + options.timeout
        self._salt = new_salt()
        self._waiting_for = "the sources"
        self.result = Result(vm_id=identity.vm_id, spans=self._timeline.spans)

    async def provision(self, *, force: bool = False) -> Result:
        """Provision the system and tell the platform; a failure is in the result, and told."""
        await self._guard(self._provision(force=force))
        if self.result.error is not None:
            await self._tell_failure(self.result.error)
        await announce.store_report(self._system, self._options, self.result)
        return self.result

    async def refuse(self, error: ProvisioningError) -> Result:
        """Tell the platform of an error that came up before there was anything to run."""
        self.result.error = error
        await self._tell_failure(error)
        return self.result

    async def dry_run(self) -> Result:
        """Gather and plan, and compare the plan with the present system; writes nothing and posts nothing."""
        await self._guard(self._preview())
        return self.result

    # -- the story -----------------------------------------------------------------------------------------------------

    async def _provision(self, *, force: bool) -> None:
        await self._make_state_directory()
        refuse_other_provisioners(self._system, self._options.other_provisioners)
        if not force and self._holds(state.APPLIED):
            logger.info("applied by an earlier run: only the report is due")
            async with open_transport(self._timeline) as transport:
                await self._tell_ready(transport, None)
            self.result.outcome = Outcome.ALREADY_PROVISIONED
            return
        async with Sources(self._options, self.result, self._timeline, deadline=self._deadline) as sources:
            early = await sources.enough()
            if self._identity.dmi_uuid is None and not state.is_empty(self._state_dir):
                # Only IMDS knows whether this is the VM that was provisioned, or a captured image on another one.
                early = await sources.all(early)
                self._identify(early)
                if not force and self._holds(state.READY):
                    self.result.outcome = Outcome.ALREADY_PROVISIONED
                    return
            plan = self._plan(early)
            await self._apply(plan.steps)
            evidence = await sources.all(early)
            if evidence != early:
                await self._apply(self._plan(evidence).beyond(plan))
            await self._record(state.APPLIED)
            transport = await sources.transport()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._eject(plan))
                group.create_task(self._tell_ready(transport, sources))
        self.result.outcome = Outcome.PROVISIONED

    async def _preview(self) -> None:
        async with Sources(self._options, self.result, self._timeline, deadline=self._deadline) as sources:
            plan = self._plan(await sources.all(await sources.enough()))
            self.result.actions = await preview(plan.steps, self._system)
            await sources.goal_state(DRY_RUN_GRACE)
        if error := first_required_failure(self.result.actions):
            raise error
        self.result.outcome = Outcome.PLANNED

    # -- its parts -----------------------------------------------------------------------------------------------------

    def _identify(self, evidence: Evidence) -> None:
        if self.result.vm_id is None and evidence.instance:
            self.result.vm_id = evidence.instance.vm_id

    def _plan(self, evidence: Evidence) -> Plan:
        self._identify(evidence)
        with self._timeline.span("plan"):
            plan = plan_provisioning(evidence, self._options, salt=self._salt)
        self.result.plan = plan
        for difference in plan.differences:
            logger.warning("the sources differ on %s; the media's value is used", difference)
        return plan

    async def _apply(self, steps: Sequence[Step]) -> None:
        self._waiting_for = "the system's tools"
        now = [step for step in steps if not isinstance(step.action, EjectMedia)]
        self.result.actions += await apply(now, self._system, self._timeline)
        if error := first_required_failure(self.result.actions):
            raise error

    async def _eject(self, plan: Plan) -> None:
        """Eject once the marker is on disk: a run killed before that needs the disc again."""
        steps = [step for step in plan.steps if isinstance(step.action, EjectMedia)]
        with suppress(TimeoutError):
            async with asyncio.timeout(EJECT_LIMIT):
                self.result.actions += await apply(steps, self._system, self._timeline)

    async def _tell_ready(self, transport: Transport, sources: Sources | None) -> None:
        self._waiting_for = "WireServer to accept the Ready report"
        goal_state = await sources.goal_state() if sources else None
        try:
            delivery = await report_health(
                transport, self._options.wireserver_url, goal_state=goal_state, deadline=self._deadline
            )
        except ProvisioningError as error:
            raise ProvisioningError(Reason.REPORT_FAILED, cause=error.reason.phrase, **error.data) from error
        self.result.reported, self.result.channel, self.result.attempts = "Ready", delivery.channel, delivery.attempts
        logger.info("Ready reported: channel=%s attempts=%d", delivery.channel, delivery.attempts)
        await self._record(state.READY)

    async def _tell_failure(self, error: ProvisioningError) -> None:
        """Tell of a failure, the surest channels first; what goes wrong here is logged and no more."""
        report = encode_failure(
            error.reason.phrase,
            error.data,
            agent=f"minprov/{__version__}",
            vm_id=self.result.vm_id or UNKNOWN_VM_ID,
            timestamp=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        logger.error("%s", report)
        announce.write_console(self._system, self._options, report)
        await announce.store_report(self._system, self._options, self.result)
        if error.reason in UNTOLD:
            return
        deadline = max(self._deadline, asyncio.get_running_loop().time() + FAILURE_GRACE)
        try:
            async with asyncio.timeout_at(deadline), open_transport(self._timeline) as transport:
                url = self._options.wireserver_url
                delivery = await report_health(transport, url, failure=report, deadline=deadline)
        except (ProvisioningError, TimeoutError) as failure:
            logger.error("NotReady not reported: %s", failure)
            return
        self.result.reported, self.result.channel, self.result.attempts = (
            "NotReady",
            delivery.channel,
            delivery.attempts,
        )
        logger.info("NotReady reported: channel=%s attempts=%d", delivery.channel, delivery.attempts)

    # -- what earlier runs left ----------------------------------------------------------------------------------------

    @property
    def _uuid(self) -> str | None:
        return self._identity.dmi_uuid or self.result.vm_id

    async def _make_state_directory(self) -> None:
        try:
            await in_thread(os.makedirs, self._state_dir, 0o700, exist_ok=True)
        except OSError as error:
            raise file_error(error, self._options.state_dir) from error

    def _holds(self, fact: str) -> bool:
        return self._uuid is not None and state.holds(self._state_dir, fact, self._uuid)

    async def _record(self, fact: str) -> None:
        if self._uuid is None:
            logger.warning("no VM id from firmware or IMDS: the next boot provisions again")
            return
        try:
            await in_thread(state.record, self._state_dir, fact, self._uuid)
        except OSError as error:
            raise file_error(error, f"{self._options.state_dir}/{fact}/{self._uuid}") from error

    # -- bounds --------------------------------------------------------------------------------------------------------

    async def _guard(self, story: Coroutine[Any, Any, None]) -> None:
        """Run the story within the deadline; however it fails, the result holds the error."""
        try:
            async with asyncio.timeout_at(self._deadline), asyncio.TaskGroup() as group:
                heartbeat = group.create_task(self._heartbeat())
                await story
                heartbeat.cancel()
        except* ProvisioningError as failures:
            self.result.error = _first(failures)
        except* TimeoutError:
            limit = f"{self._options.timeout:g} s"
            ready_is_due = self._holds(state.APPLIED)
            reason = Reason.REPORT_FAILED if ready_is_due else Reason.DEADLINE
            self.result.error = ProvisioningError(reason, waited_for=self._waiting_for, limit=limit)
        except* asyncio.CancelledError:
            self.result.error = ProvisioningError(Reason.TERMINATED, waited_for=self._waiting_for)
        except* Exception as defects:  # whatever it is, the platform is told, and the log has the traceback
            logger.critical("unhandled exception", exc_info=defects)
            self.result.error = ProvisioningError(Reason.INTERNAL, exception=type(defects.exceptions[0]).__name__)

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            left = self._deadline - asyncio.get_running_loop().time()
            line = f"waiting for {self._waiting_for}, {left:.0f} s left"
            logger.info("%s", line)
            announce.write_console(self._system, self._options, line)


def _first(failures: BaseExceptionGroup[ProvisioningError]) -> ProvisioningError:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
