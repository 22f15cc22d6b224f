"""Tell how a run ended, on every channel: the console, the host, the platform, and the file that `status` reads.

A final report is posted only after the last resort's token was taken: nobody else speaks then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, TypeVar

from minprov import __version__
from minprov.errors import ProvisioningError, Reason
from minprov.gather import open_transport
from minprov.limits import FAILURE_GRACE
from minprov.outcome import channels
from minprov.report import ORDINARY_VM, encode_failure, encode_success
from minprov.wire import Delivery, report_health

if TYPE_CHECKING:
    from minprov.bounds import Bounds
    from minprov.config import Options
    from minprov.last_resort import LastResort, NoLastResort
    from minprov.machine.system import System
    from minprov.model import GoalState
    from minprov.network.transport import Transport
    from minprov.outcome.result import Result
    from minprov.outcome.timeline import Timeline

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=BaseException)

AGENT = f"minprov/{__version__}"
UNKNOWN_VM_ID = "00000000-0000-0000-0000-000000000000"
# After these, Ready may still follow from the next run or from the other provisioner: NotReady would end that.
LEFT_TO_OTHERS = frozenset({Reason.REPORT_FAILED, Reason.TERMINATED, Reason.OTHER_PROVISIONER, Reason.ANOTHER_RUN})


class Reporting:
    """The channels of one run; what was reported is kept in its result."""

    def __init__(
        self,
        options: Options,
        system: System,
        result: Result,
        timeline: Timeline,
        bounds: Bounds,
        last_resort: LastResort | NoLastResort,
        pps_type: str = ORDINARY_VM,
    ) -> None:
        self._options = options
        self._system = system
        self._result = result
        self._timeline = timeline
        self._bounds = bounds
        self._last_resort = last_resort
        self._pps_type = pps_type

    async def say(self, line: str) -> None:
        """Write a line to the console."""
        await channels.write_console(self._options, line)

    async def store(self) -> None:
        """Keep the result in the state directory."""
        await channels.store_report(self._system, self._options, self._result)

    async def report_ready(self, transport: Transport, goal_state: GoalState | None) -> None:
        """Tell the host, then the platform, that the VM is ready.

        Raises:
            ProvisioningError: REPORT_FAILED.

        """
        # The host collects the pool when it gets the health report, and nothing that is written later.
        success = encode_success(agent=AGENT, vm_id=self._vm_id, timestamp=_now(), pps_type=self._pps_type)
        await channels.tell_host(self._options, success, self._result)
        try:
            with self._timeline.waiting("WireServer to accept the Ready report"):
                delivery = await report_health(
                    transport,
                    self._options.wireserver_url,
                    goal_state=goal_state,
                    deadline=self._bounds.deadline,
                    claim=self._last_resort.claim,
                )
        except ProvisioningError as error:
            raise ProvisioningError(Reason.REPORT_FAILED, cause=error.reason.phrase, **error.data) from error
        self._note_delivery("Ready", delivery)

    async def tell_failure(self, error: ProvisioningError) -> None:
        """Tell of a failure, the surest channels first; what goes wrong here is logged and no more."""
        pooled = error.data["type"] if error.reason is Reason.UNSUPPORTED_PREPROVISIONING else self._pps_type
        report = encode_failure(
            error.reason.phrase, error.data, agent=AGENT, vm_id=self._vm_id, timestamp=_now(), pps_type=pooled
        )
        logger.error("%s", report)
        if error.reason is Reason.ANOTHER_RUN:  # whose result and report are the ones that count
            await self.say(report)
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self.say(report))
            group.create_task(self.store())
            if error.reason is not Reason.OTHER_PROVISIONER:  # whose own report is the one that counts
                group.create_task(channels.tell_host(self._options, report, self._result))
        if error.reason in LEFT_TO_OTHERS:
            return
        self._result.is_untold = True
        self._bounds.extend(FAILURE_GRACE)
        try:
            await self._bounds.run(self._post_failure(report))
        except* (ProvisioningError, TimeoutError) as failures:
            logger.error("NotReady not reported: %s", first_of(failures))
        except* Exception as defects:
            explained(defects, "NotReady not reported")

    async def _post_failure(self, report: str) -> None:
        with self._timeline.waiting("WireServer to accept the failure report"):
            async with open_transport(self._timeline) as transport:
                delivery = await report_health(
                    transport,
                    self._options.wireserver_url,
                    failure=report,
                    deadline=self._bounds.deadline,
                    claim=self._last_resort.claim,
                )
        self._note_delivery("NotReady", delivery)

    def _note_delivery(self, reported: str, delivery: Delivery) -> None:
        result = self._result
        result.reported, result.channel, result.attempts = reported, delivery.channel, delivery.attempts
        result.is_untold = False
        logger.info("%s reported: channel=%s attempts=%d", reported, delivery.channel, delivery.attempts)

    @property
    def _vm_id(self) -> str:
        return self._result.vm_id or UNKNOWN_VM_ID


def explained(defects: ExceptionGroup[Exception], what: str) -> ProvisioningError:
    """Log what nobody has foreseen, and return the error for it; a traceback says nothing of what is lacking."""
    from minprov.machine.shortage import find_shortage

    first = first_of(defects)
    if shortage := find_shortage(first):
        error = ProvisioningError(Reason.NO_RESOURCES, detail=shortage)
    elif isinstance(first, ImportError):
        error = ProvisioningError(Reason.NOT_LOADED, detail=str(first))
    else:
        logger.critical("%s", what, exc_info=defects)
        return ProvisioningError(Reason.INTERNAL, exception=type(first).__name__)
    logger.error("%s", error)
    return error


def first_of(failures: BaseExceptionGroup[E]) -> E:
    """Return the first exception of a group, however deep it stands."""
    first = failures.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
