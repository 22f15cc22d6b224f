"""Ask the three sources at the same time: provisioning media, IMDS, goal state.

Each source ends as a value or as the error that kept it away; what is missing is decided on by whoever needs it. The
HTTP client is loaded in a thread, while tools are waited for: its import takes longer than all the rest of a run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from minprov.choice import has_all, is_complete, wants_certificates
from minprov.config import Options
from minprov.discs.reading import Reading, ReadMedia
from minprov.errors import ProvisioningError, Reason
from minprov.limits import (
    IMDS_GRACE,
    IMDS_LATE_GRACE,
    MEDIA_LIMIT,
    MEDIA_WAIT_SHARE,
    NOTHING_ASKED_WAIT,
    PROXY_AGENT_WAIT,
    SOURCE_SHARE,
)
from minprov.machine.blocking import in_thread
from minprov.machine.proxy_agent import find_proxy_agent
from minprov.model import Evidence, GoalState, InstanceMetadata, OvfEnv
from minprov.outcome.result import Result, Source, SourceState
from minprov.outcome.timeline import Timeline
from minprov.plan import needs_source
from minprov.sources.imds import fetch_instance
from minprov.wire import fetch_goal_state

if TYPE_CHECKING:
    from types import TracebackType

    from minprov.network.transport import Transport

logger = logging.getLogger(__name__)

T = TypeVar("T")

NOT_ANSWERED = Source(state=SourceState.SKIPPED, detail="no answer by the time the run ended or went on without it")
# Faults of the disc, which IMDS can stand in for. An ovf-env that is there and cannot be used is another matter: it is
# what the platform has to say, and acting on something else would be a guess.
MEDIA_FAULTS = frozenset(
    {
        Reason.MEDIA_NOT_FOUND,
        Reason.MEDIA_UNREADABLE,
        Reason.MEDIA_CORRUPT,
        Reason.MEDIA_UNSUPPORTED,
        Reason.OVF_FOREIGN,
        Reason.NOT_PERMITTED,
    }
)
# Reasons that say that a source is not there, and not that it is in a bad way.
NOT_THERE = frozenset(
    {
        Reason.MEDIA_NOT_FOUND,
        Reason.IMDS_CONNECTION,
        Reason.IMDS_CONNECT_TIMEOUT,
        Reason.IMDS_RESERVED,
        Reason.WIRESERVER_CONNECTION,
        Reason.WIRESERVER_TIMEOUT,
    }
)


class Sources:
    """The sources of one run, being asked from the moment this is entered to the moment it is left.

    `result` is kept up to date with what became of each.
    """

    def __init__(
        self, options: Options, reading: Reading, result: Result, timeline: Timeline, *, deadline: float
    ) -> None:
        self._options = options
        self._reading = reading
        self._result = result
        self._timeline = timeline
        self._deadline = deadline
        self._group = asyncio.TaskGroup()
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[Any]] = []
        self._media_error: ProvisioningError | None = None
        self._instance_error: ProvisioningError | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._imds_deadline = min(self._share(), asyncio.get_running_loop().time() + self._options.imds_limit)
        self._result.media = self._result.imds = self._result.goal_state = NOT_ANSWERED
        self._media = self._start(self._read_media())
        self._transport = self._start(self._open_transport())
        # Asked first, as Ready always waits for it.
        self._goal_state = self._start(self._fetch_goal_state())
        self._instance = self._start(self._fetch_instance())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            await self._group.__aexit__(kind, error, traceback)
        finally:
            await self._stack.aclose()

    async def transport(self) -> Transport:
        """Return the HTTP client, once it is loaded."""
        return await asyncio.shield(self._transport)

    async def enough(self) -> Evidence:
        """Return the evidence as soon as it is enough to plan with: that of complete media, else also that of IMDS.

        Raises `ProvisioningError` when the media carries an ovf-env that cannot be used, or when no source delivered:
        with the fault of one that is there, or of media that was named, rather than `Reason.NO_SOURCE`.
        """
        with self._timeline.waiting("the provisioning media or IMDS"):
            await asyncio.wait({self._media, self._instance}, return_when=asyncio.FIRST_COMPLETED)
        with self._timeline.waiting("the provisioning media"):
            media = await asyncio.shield(self._media)
        if self._media_error and self._media_error.reason not in MEDIA_FAULTS:
            raise self._media_error
        if media and media.ovf and wants_certificates(media.ovf, self._options):
            media = media._replace(ovf=await self._fetch_keys(media.ovf))
        if media and media.ovf and is_complete(media.ovf, self._options):
            return media
        if not needs_source(self._options):
            return media or Evidence()
        with self._timeline.waiting("IMDS"):
            instance = await asyncio.shield(self._instance)
        if media or instance:
            return (media or Evidence(no_disc=self._has_no_disc()))._replace(instance=instance)
        for error in (self._media_error, self._instance_error):
            if error and (error.reason not in NOT_THERE or (error is self._media_error and self._options.media)):
                raise error
        raise ProvisioningError(Reason.NO_SOURCE, media=self._result.media.detail, imds=self._result.imds.detail)

    async def all(self, evidence: Evidence) -> Evidence:
        """Return the evidence completed by IMDS, which is given a little more time if it has something to add."""
        needs_no_more = self._result.vm_id is not None and has_all(evidence, self._options)
        if not self._instance.done() and (self._options.left_pool or not needs_no_more):
            with self._timeline.waiting("IMDS"):
                # Ready has to wait for a route as well, so until there is one nothing is lost.
                transport = await self.transport()
                await transport.wait_for_route(self._options.imds_url, deadline=self._imds_deadline)
                await asyncio.wait([self._instance], timeout=IMDS_GRACE)
        return self._by_now(evidence)

    async def look(self, grace: float) -> None:
        """Give IMDS and WireServer this long to answer, once they can be asked: somebody wants to see what they say."""
        await self.transport()
        await asyncio.wait({self._instance, self._goal_state}, timeout=grace)

    async def late(self, evidence: Evidence) -> Evidence:
        """Return the evidence completed by IMDS, whose answer may be on its way when Ready is told without it."""
        await asyncio.wait([self._instance], timeout=IMDS_LATE_GRACE)
        return self._by_now(evidence)

    def _by_now(self, evidence: Evidence) -> Evidence:
        """Return the evidence completed by what IMDS has answered so far."""
        if evidence.instance is None and self._instance.done():
            return evidence._replace(instance=self._instance.result())
        return evidence

    async def goal_state(self, grace: float) -> GoalState | None:
        """Return the goal state if it is there within the grace, counted from when there is a route; else stop asking.

        Whoever needs it later asks anew, and nobody beside that.
        """
        if not self._goal_state.done():
            transport = await self.transport()
            await transport.wait_for_route(self._options.wireserver_url, deadline=self._deadline)
            await asyncio.wait([self._goal_state], timeout=grace)
        if self._goal_state.done():
            return self._goal_state.result()
        self._goal_state.cancel()
        return None

    def _has_no_disc(self) -> bool:
        return self._media_error is not None and self._media_error.reason is Reason.MEDIA_NOT_FOUND

    def _share(self) -> float:
        """Return until when a source may be waited for, from now."""
        now = asyncio.get_running_loop().time()
        return now + (self._deadline - now) * SOURCE_SHARE

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._group.create_task(work)
        self._tasks.append(task)
        return task

    async def _open_transport(self) -> Transport:
        if find_proxy_agent():
            self._result.note(f"the guest proxy agent is installed: refusals are no last word for {PROXY_AGENT_WAIT} s")
        return await self._stack.enter_async_context(open_transport(self._timeline))

    async def _read_media(self) -> Evidence | None:
        try:
            with self._timeline.span("media"):
                media = await self._end_reading()
        except (ProvisioningError, ChildProcessError) as failure:
            error = failure
            if not isinstance(error, ProvisioningError):
                error = ProvisioningError(Reason.MEDIA_UNREADABLE, detail=error)
            self._result.media = _failed(error)
            self._media_error = error
            return None
        logger.info("media: %s", media.detail)
        self._result.media = Source(state=SourceState.FOUND, detail=media.detail)
        return Evidence(
            ovf=media.ovf,
            password_hash=media.password_hash,
            redacted_ovf_env=media.redacted_ovf_env,
            custom_data_bin=media.custom_data,
            device=media.device,
        )

    async def _end_reading(self) -> ReadMedia:
        """Return what was read; a drive is not given up while there is nothing to go on with in its place."""
        reading = asyncio.create_task(self._reading.media())
        try:
            if needs_source(self._options):
                await asyncio.wait({reading, self._instance}, return_when=asyncio.FIRST_COMPLETED)
            left = self._share() - asyncio.get_running_loop().time()
            instance = self._instance.result() if self._instance.done() else None
            wait = NOTHING_ASKED_WAIT if instance and instance.asks_nothing else self._options.media_wait
            # That there is no disc has to be known before this ends, as something that does not answer would.
            self._reading.limit_wait(min(self._options.media_wait, wait, left * MEDIA_WAIT_SHARE))
            limit = min(MEDIA_LIMIT, left)
            try:
                async with asyncio.timeout(limit):
                    return await reading
            except TimeoutError as error:
                detail = f"no answer in {limit:.1f} s"
                raise ProvisioningError(Reason.MEDIA_UNREADABLE, detail=detail) from error
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _fetch_keys(self, ovf: OvfEnv) -> OvfEnv:
        """Return the ovf-env with the keys that it names by their certificates, as far as those are delivered."""
        from minprov.sources.certificate_keys import with_fetched_keys  # no VM of today's Azure has such keys

        with self._timeline.span("certificates"), self._timeline.waiting("the certificates that the media names"):
            limit = self._share() - asyncio.get_running_loop().time()
            completed = await with_fetched_keys(ovf, limit=limit)
        before, after = (sum(key.value is None for key in each.ssh_public_keys) for each in (ovf, completed))
        if fetched := before - after:
            self._result.note(f"keys from certificates that the media names: {fetched}", level=logging.INFO)
        return completed

    async def _fetch_instance(self) -> InstanceMetadata | None:
        transport = await self.transport()
        try:
            instance = await fetch_instance(transport, self._options.imds_url, deadline=self._imds_deadline)
        except ProvisioningError as error:
            self._instance_error = error
            self._result.imds = _failed(error)
            return None
        self._result.imds = Source(state=SourceState.FOUND, detail=self._options.imds_url)
        return instance

    async def _fetch_goal_state(self) -> GoalState | None:
        transport = await self.transport()
        try:
            goal_state = await fetch_goal_state(transport, self._options.wireserver_url, deadline=self._deadline)
        except ProvisioningError as error:
            self._result.goal_state = _failed(error)
            return None
        detail = f"{self._options.wireserver_url}, incarnation {goal_state.incarnation}"
        self._result.goal_state = Source(state=SourceState.FOUND, detail=detail)
        return goal_state


async def find_drive(options: Options) -> str | None:
    """Return the drive with the provisioning media, if it is still in there."""
    with suppress(ProvisioningError, ChildProcessError, TimeoutError):
        async with asyncio.timeout(MEDIA_LIMIT):
            reading = Reading(options)
            reading.limit_wait(0.0)
            return (await reading.media()).device
    return None


@asynccontextmanager
async def open_transport(timeline: Timeline) -> AsyncIterator[Transport]:
    """Load the HTTP client beside the event loop and open a session."""
    with timeline.span("load HTTP client"):
        transport = await in_thread(_load_transport)
    unsigned_limit = PROXY_AGENT_WAIT if find_proxy_agent() else 0.0
    async with transport(timeline, unsigned_limit=unsigned_limit) as session:
        yield session


def _failed(error: ProvisioningError) -> Source:
    logger.info("%s", error)
    missing = error.reason in NOT_THERE
    return Source(state=SourceState.MISSING if missing else SourceState.FAILED, detail=str(error))


def _load_transport() -> type[Transport]:
    from minprov.network.transport import Transport

    return Transport
