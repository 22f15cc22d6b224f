"""The one shot: gather, plan, apply, report.

Owns the order of things. Applying starts as soon as there is enough to plan with; what arrives later is planned again,
and only what is new is carried out. Ready is posted when every required property was read back and that fact is on
disk. A failure is told on every channel there is, in the time that is left or a little more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from minprov.actions import ExecuteCustomData, Phase, Policy, PublishHostname, RunHooks
from minprov.apply import apply, first_required_failure, preview
from minprov.bounds import Bounds
from minprov.choice import asks_nothing, find_differences
from minprov.config import Execute, OnOtherProvisioner, Options
from minprov.earlier_runs import EarlierRuns
from minprov.errors import ProvisioningError, Reason
from minprov.gather import Sources, find_drive, open_transport
from minprov.limits import DRY_RUN_GRACE, EJECT_LIMIT, GOAL_STATE_GRACE, PUBLISH_LIMIT
from minprov.machine import markers
from minprov.machine.account_locks import clear_up_after_tools
from minprov.machine.identity import Identity
from minprov.machine.provisioners import enabled_provisioners
from minprov.machine.system import System
from minprov.model import Evidence
from minprov.outcome.channels import encode_report
from minprov.outcome.result import ActionResult, Outcome, Result
from minprov.outcome.timeline import Timeline
from minprov.plan import Plan, Step, plan_duties, plan_ejection, plan_provisioning
from minprov.properties import root_password
from minprov.reporting import Reporting, explained, first_of

if TYPE_CHECKING:
    from minprov.discs.reading import Reading
    from minprov.last_resort import LastResort, NoLastResort
    from minprov.network.transport import Transport

logger = logging.getLogger(__name__)

EMERGENCY_MODES = ("emergency", "rescue")

PHASES = (Phase.BEFORE_CHANGES, Phase.BEFORE_READY)

E = TypeVar("E", bound=BaseException)


class Run:
    """One run on one system, and what it has come to so far; create it in the event loop."""

    def __init__(
        self,
        options: Options,
        system: System,
        identity: Identity,
        reading: Reading,
        last_resort: LastResort | NoLastResort,
    ) -> None:
        self._options = options
        self._system = system
        self._identity = identity
        self._reading = reading
        self._timeline = Timeline()
        self._bounds = Bounds(options.timeout, self._timeline)
        self._drive: str | None = None
        self.result = Result(vm_id=identity.vm_id, spans=self._timeline.spans)
        self.result.duties = options.duties
        self._earlier_runs = EarlierRuns(options, system, identity, self.result)
        self._reporting = Reporting(options, system, self.result, self._timeline, self._bounds, last_resort)

    async def provision(self, *, force: bool = False) -> Result:
        """Provision the system and tell the platform; a failure is in the result, and told."""
        async with self._bounds.heartbeat(self._reporting.say):
            await self._guard(self._provision(force=force))
            await self._conclude()
        return self.result

    async def refuse(self, error: ProvisioningError) -> Result:
        """Tell the platform of an error that came up before there was anything to run."""
        self.result.error = error
        async with self._bounds.heartbeat(self._reporting.say):
            await self._conclude()
        return self.result

    async def dry_run(self) -> Result:
        """Gather and plan, and compare the plan with the present system; writes nothing and posts nothing."""
        await self._guard(self._preview())
        return self.result

    def terminate(self) -> None:
        """Stop whatever may take long; what is told on this side of the wire is told yet."""
        self._bounds.terminate()

    # -- the run -------------------------------------------------------------------------------------------------------

    async def _provision(self, *, force: bool) -> None:
        await self._earlier_runs.open(self._timeline, self._bounds.deadline)
        if not force and self._earlier_runs.holds(markers.READY):  # by the run that this one has waited for
            self.result.outcome = Outcome.ALREADY_PROVISIONED
            return
        self._earlier_runs.note_volatile_state()
        clear_up_after_tools(self._system)
        self._refuse_other_provisioners()
        if not force and self._earlier_runs.holds(markers.APPLIED):
            async with open_transport(self._timeline) as transport:
                await self._finish_earlier_run(transport, None)
            return
        if self._earlier_runs.waits_in_pool():
            self.result.outcome = Outcome.IN_POOL
            return
        async with self._sources() as sources:
            early = await sources.enough()
            if self._identity.dmi_uuid is None and not self._earlier_runs.is_empty():
                # Only IMDS knows whether this is the VM that was provisioned, or another with a captured image.
                early = await sources.all(early)
                self._identify(early)
                if not force and self._earlier_runs.holds(markers.READY):
                    self.result.outcome = Outcome.ALREADY_PROVISIONED
                    return
                if not force and self._earlier_runs.holds(markers.APPLIED):
                    await self._finish_earlier_run(await sources.transport(), sources)
                    return
            if self._options.left_pool:  # which IMDS, too, has to know before the owner's VM is changed
                early = await sources.all(early)
            plan = self._plan(early)
            if plan.pool_type:
                await self._try_to_wait(plan)
                return
            if not asks_nothing(early):  # else it is the same machine, restored, and keeps what it has
                await self._earlier_runs.withdraw_from_other_vm()
            await self._apply(plan.steps)
            evidence = await sources.all(early)
            if evidence != early:
                await self._apply(self._plan(evidence).beyond(plan))
            await self._earlier_runs.reload_sshd()
            await self._make_program_due()
            self.result.outcome = Outcome.NOTHING_ASKED if asks_nothing(evidence) else Outcome.PROVISIONED
            await self._run_hooks()
            await self._earlier_runs.record(markers.APPLIED)
            await self._report_ready(await sources.transport(), sources)
            self._drive = evidence.device
            self._compare(await sources.late(evidence))

    async def _try_to_wait(self, plan: Plan) -> None:
        """End as a VM of a pool, of which nothing is applied nor reported here; what waits is a program of its own."""
        if self._identity.dmi_uuid is None:
            detail = "the firmware shows no UUID to know the VM by after a reboot"
            raise ProvisioningError(Reason.UNSUPPORTED_PREPROVISIONING, type=plan.pool_type, detail=detail)
        self._keep(await preview(plan.steps, self._system))
        if error := first_required_failure(self.result.actions):
            raise error
        self.result.outcome = Outcome.IN_POOL

    async def _finish_earlier_run(self, transport: Transport, sources: Sources | None) -> None:
        """Do what a run has left to do that was ended once everything had been applied."""
        logger.info("applied by an earlier run: only the report is due")
        await self._apply(tuple(plan_duties(self._options)))  # which hold for one boot alone
        self.result.outcome = Outcome.ALREADY_PROVISIONED
        await self._report_ready(transport, sources)
        self._drive = await find_drive(self._options)

    async def _preview(self) -> None:
        async with self._sources() as sources:
            self._earlier_runs.note_volatile_state()
            early = await sources.enough()
            await sources.look(DRY_RUN_GRACE)
            evidence = await sources.all(early)
            plan = self._plan(evidence)
            self._compare(evidence)
            if not asks_nothing(evidence):
                self._earlier_runs.note_withdrawal()
            self._keep(await preview(plan.steps, self._system))
            self._note_dangers()
        if error := first_required_failure(self.result.actions):
            raise error
        self.result.outcome = Outcome.PLANNED

    # -- its parts -----------------------------------------------------------------------------------------------------

    def _refuse_other_provisioners(self) -> None:
        choice = self._options.other_provisioners
        for agent in enabled_provisioners(self._system):
            from minprov.properties import waagent  # few systems have another provisioner

            prepared = agent == waagent.NAME and choice is OnOtherProvisioner.PREPARE
            if choice is not OnOtherProvisioner.IGNORE and not prepared:
                raise ProvisioningError(Reason.OTHER_PROVISIONER, agent=agent)
            treated = "it is to find the VM provisioned" if prepared else "the configuration says to ignore it"
            self.result.note(f"{agent} is enabled, too: {treated}")

    def _sources(self) -> Sources:
        return Sources(self._options, self._reading, self.result, self._timeline, deadline=self._bounds.deadline)

    def _identify(self, evidence: Evidence) -> None:
        if self.result.vm_id is None and evidence.instance:
            self.result.vm_id = evidence.instance.vm_id

    def _plan(self, evidence: Evidence) -> Plan:
        self._identify(evidence)
        with self._timeline.span("plan"):
            plan = plan_provisioning(evidence, self._options)
        self.result.plan = plan
        for note in plan.notes:
            self.result.note(note, level=logging.INFO)  # what was asked for, and how it is understood
        return plan

    def _compare(self, evidence: Evidence) -> None:
        """Tell where the sources differ, as far as they have answered."""
        if self.result.plan:
            self.result.plan = self.result.plan._replace(differences=find_differences(evidence))
            for difference in self.result.plan.differences or ():
                logger.warning("the sources differ on %s; the media's value is used", difference)

    async def _run_hooks(self) -> None:
        """Run the image's own programs, which are told what the run has come to."""
        steps = self.result.plan.steps if self.result.plan else ()
        for step in steps:
            if isinstance(step.action, RunHooks):
                told = step.action._replace(vm_id=self.result.vm_id, report=encode_report(self.result))
                await self._apply([step._replace(action=told)], (Phase.JUST_BEFORE_READY,))

    async def _apply(self, steps: Sequence[Step], phases: Sequence[Phase] = PHASES) -> None:
        for phase in phases:
            now = [step for step in steps if step.phase is phase]
            self._keep(await apply(now, self._system, self._timeline))
            if error := first_required_failure(self.result.actions):
                raise error

    def _keep(self, results: Sequence[ActionResult]) -> None:
        self.result.actions += tuple(results)
        for result in results:
            for note in result.notes:
                self.result.note(note)

    async def _make_program_due(self) -> None:
        """Put the program that comes after Ready on record: a run that is cut off by then leaves it to the next one."""
        for step in self.result.plan.steps if self.result.plan else ():
            if isinstance(step.action, ExecuteCustomData) and step.phase is Phase.AFTER_READY:
                from minprov.properties.custom_data_run import make_due  # few VMs have one

                await make_due(self._system, step.action)

    def _refuse_emergency(self) -> None:
        """Raise `ProvisioningError` where systemd has given up this boot: nobody is let in then."""
        for mode in EMERGENCY_MODES:
            # There as long as the service runs: unit_export_invocation_id in systemd's unit.c.
            if self._system.live and os.path.lexists(f"/run/systemd/units/invocation:{mode}.service"):
                raise ProvisioningError(Reason.EMERGENCY_MODE, unit=f"{mode}.service")

    async def _report_ready(self, transport: Transport, sources: Sources | None) -> None:
        self._refuse_emergency()
        goal_state = await sources.goal_state(GOAL_STATE_GRACE) if sources else None
        await self._reporting.report_ready(transport, goal_state)

    async def _conclude(self) -> None:
        """Tell how the run ended on every channel that has not been told yet."""
        if self.result.error is not None:
            self.result.outcome = Outcome.FAILED
            await self._reporting.tell_failure(self.result.error)
            if self.result.error.reason is Reason.ANOTHER_RUN:
                return
            await self._earlier_runs.close_journal()
            self._note_dangers()
            await self._reporting.store()
        elif self.result.reported:
            await self._eject()
            await self._apply_after_ready()
            await self._earlier_runs.close_journal()
            await self._tell_host_keys()
            self._note_dangers()
            await self._reporting.store()
            # Last of all: with this on record, no further run will do what this one has left undone.
            try:
                await self._earlier_runs.record(markers.READY)
            except ProvisioningError as error:
                logger.warning("the next run will report Ready again: %s", error)
            line = f"{self.result.outcome.value}, Ready reported in {self._timeline.now_ms() / 1000:.1f} s"
            await self._reporting.say(line)

    def _note_dangers(self) -> None:
        """Tell of what was not asked for and harms all the same: how it is now, whatever the policies are."""
        from minprov.machine.interfaces import find_faults  # once Ready is told

        for fault in find_faults() if self._system.live else ():
            self.result.note(fault)
        if root_password.is_open(self._system):
            self.result.note("root has an empty password: anybody with a console is root")

    async def _tell_host_keys(self) -> None:
        from minprov.properties.host_key_fingerprints import read_fingerprints  # once Ready is told

        self.result.host_keys = read_fingerprints(self._system)
        if self._options.host_keys_console:
            for fingerprint in self.result.host_keys:
                await self._reporting.say(f"host key {fingerprint}")

    async def _eject(self) -> None:
        """Give the disc back, which has the password on it, once there is nothing more that it is needed for."""
        if self._drive is not None:
            await self._apply_late(plan_ejection(self._drive, self._options), limit=EJECT_LIMIT)

    async def _apply_after_ready(self) -> None:
        """Do what is due once no report is under way: with a hostname that is published, the address may be gone."""
        for step in self.result.plan.steps if self.result.plan else self._left_over():
            if isinstance(step.action, PublishHostname):
                await self._apply_late(step, limit=PUBLISH_LIMIT)
            elif isinstance(step.action, ExecuteCustomData) and step.phase is Phase.AFTER_READY:
                await self._apply_late(step, limit=step.action.time_limit)

    def _left_over(self) -> tuple[Step, ...]:
        """Return what an earlier run, which has applied all else, has left to do after Ready."""
        if self._options.custom_data_execute is not Execute.AFTER_READY or self._options.custom_data is Policy.OFF:
            return ()
        from minprov.properties.custom_data_run import find_due

        due = find_due(self._system, self._options.state_dir)
        return (Step("execute-custom-data", due.path, Policy.BEST_EFFORT, due, Phase.AFTER_READY),) if due else ()

    async def _apply_late(self, step: Step, *, limit: float) -> None:
        async def apply_step() -> None:
            self._keep(await apply([step], self._system, self._timeline))

        try:
            await self._bounds.run(apply_step(), limit=limit)
        except* TimeoutError:
            logger.warning("%s not done: no end after %g s", step.name, limit)
        except* Exception as failures:
            logger.warning("%s not done: %s", step.name, first_of(failures))

    # -- bounds --------------------------------------------------------------------------------------------------------

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the work within its bounds; however it fails, the result has the error, unless Ready is told by then."""
        try:
            await self._bounds.run(work)
        except* ProvisioningError as failures:
            self.result.error = first_of(failures)
        except* TimeoutError:
            limit = f"{self._options.timeout:g} s"
            ready_is_due = self._earlier_runs.holds(markers.APPLIED)
            reason = Reason.REPORT_FAILED if ready_is_due else Reason.DEADLINE
            self.result.error = ProvisioningError(reason, waited_for=self._timeline.waited_for, limit=limit)
        except* Exception as defects:  # whatever it is, the platform is told, and the log has the traceback
            self.result.error = explained(defects, "unhandled exception")
        if self.result.reported and self.result.error:
            logger.warning("Ready is told all the same: %s", self.result.error)
            self.result.error = None
