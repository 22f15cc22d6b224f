"""A VM of the platform's pool: report Ready to the pool, then wait for the ovf-env that its owner's VM has.

How the platform goes about it is nowhere documented; the requests, and what is done in which order, are those of
cloud-init (`DataSourceAzure.py`, `sources/azure/imds.py`). Unlike there, no address is asked for here: networkd and
NetworkManager do that themselves when a link comes back. So there is one way to wait for all that may happen to the
machine meanwhile: IMDS is asked now and then, and at once when anything changes in the network.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from minprov.apply import apply
from minprov.bounds import Bounds
from minprov.config import Options
from minprov.duties.wait_in_pool.links import LinkWatch
from minprov.errors import ProvisioningError, Reason
from minprov.gather import find_drive, open_transport
from minprov.last_resort import NoLastResort
from minprov.limits import ATTEMPT_LIMIT, EJECT_LIMIT, POOL_POLL, SHORTEST_DELAY
from minprov.machine import markers
from minprov.machine.blocking import in_thread
from minprov.machine.files import file_error
from minprov.machine.identity import Identity
from minprov.machine.system import System
from minprov.network.retry import AttemptFailed
from minprov.network.transport import Transport
from minprov.outcome.result import Outcome, Result
from minprov.outcome.timeline import Timeline
from minprov.ovf import parse_ovf_env
from minprov.plan import plan_ejection
from minprov.reporting import Reporting, first_of
from minprov.sources.imds import HEADERS, IMDS
from minprov.wire import fetch_goal_state

logger = logging.getLogger(__name__)

OVF_ENV_PATH = "/metadata/reprovisiondata?api-version=2019-06-01"
OS_DISK = "PreprovisionedOSDisk"
UNUSABLE_ANSWERS = 5
"""In a row, of which the last is what the platform has to say: the run then tells what is wrong with it."""


async def enter(options: Options, system: System, identity: Identity, kind: str) -> ProvisioningError | None:
    """Report Ready to the pool, and keep on record that this was done; return why it could not be."""
    timeline = Timeline()
    bounds = Bounds(options.timeout, timeline)
    result = Result(vm_id=identity.vm_id, outcome=Outcome.IN_POOL, spans=timeline.spans)
    result.note(f"the pool's type is {kind}", level=logging.INFO)
    reporting = Reporting(options, system, result, timeline, bounds, NoLastResort(), kind)
    try:
        await bounds.run(_enter(options, system, identity, kind, reporting, bounds))
        if result.reported is None:
            result.note("the NIC went away while Ready was being reported, which is not done again by another one")
    except* ProvisioningError as failures:
        result.error = first_of(failures)
    except* TimeoutError:
        waited_for, limit = timeline.waited_for, f"{options.timeout:g} s"
        result.error = ProvisioningError(Reason.DEADLINE, waited_for=waited_for, limit=limit)
    if result.error:
        result.outcome = Outcome.FAILED
        await reporting.tell_failure(result.error)
    await reporting.store()
    if result.error is None:
        await reporting.say(f"in the platform's pool ({kind}), waiting for the VM's owner")
        logger.info("waiting for the VM's owner")
    return result.error


async def _enter(
    options: Options, system: System, identity: Identity, kind: str, reporting: Reporting, bounds: Bounds
) -> None:
    if drive := await find_drive(options):
        with suppress(TimeoutError):
            async with asyncio.timeout(EJECT_LIMIT):
                await apply([plan_ejection(drive, options)], system, Timeline())
    async with open_transport(Timeline()) as transport:
        # From when it is on the network: what the links do before that is the boot's.
        goal_state = await fetch_goal_state(transport, options.wireserver_url, deadline=bounds.deadline)
        with LinkWatch() as links:
            async with asyncio.TaskGroup() as group:
                report = group.create_task(reporting.report_ready(transport, goal_state))
                loss = group.create_task(links.wait_for_loss())
                await asyncio.wait({report, loss}, return_when=asyncio.FIRST_COMPLETED)
                # The platform takes the NIC once it has the report, whose answer may be lost with it. To report again
                # by another NIC, the owner's, would be to say that the owner's VM is ready.
                report.cancel()
                loss.cancel()
    if kind != OS_DISK:  # whose disk becomes another VM's, which is an ordinary one
        try:
            await in_thread(markers.record, system.path(options.state_dir), markers.POOL, identity.dmi_uuid or "")
        except OSError as error:
            raise file_error(error, f"{options.state_dir}/{markers.POOL}") from error


async def fetch_ovf_env(options: Options) -> bytes:
    """Return the ovf-env that the VM has got with its owner, however long that takes."""
    url = options.imds_url + OVF_ENV_PATH
    attempts = unusable = 0
    with LinkWatch() as links:
        async with open_transport(Timeline()) as transport:
            while True:
                attempts += 1
                pause = POOL_POLL
                try:
                    document = await _ask(transport, url, links)
                    unusable += 1
                    if unusable < UNUSABLE_ANSWERS:
                        parse_ovf_env(document)
                    return document
                except AttemptFailed as failure:
                    unusable = 0
                    error, pause = failure.error, failure.delay or pause
                except ProvisioningError as fault:
                    error = fault
                if attempts & (attempts - 1) == 0:  # the log tells how it goes on without being filled by it
                    logger.info("no owner yet: %s, attempt=%d", error, attempts)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await links.wait_for_change()


async def _ask(transport: Transport, url: str, links: LinkWatch) -> bytes:
    """Return the answer to one request, made anew when the network changes: by then the first may never be answered.

    Raises: AttemptFailed.
    """
    while True:
        async with asyncio.TaskGroup() as group:
            request = group.create_task(_attempt(transport, url))
            change = group.create_task(links.wait_for_change())
            await asyncio.wait({request, change}, return_when=asyncio.FIRST_COMPLETED)
            request.cancel()
            change.cancel()
        if not request.cancelled():
            answer = request.result()
            if isinstance(answer, AttemptFailed):
                raise answer
            return answer
        await asyncio.sleep(SHORTEST_DELAY)


async def _attempt(transport: Transport, url: str) -> bytes | AttemptFailed:
    """Return the failure rather than raise it, as it is no reason to end what is beside it in a group."""
    try:
        return await transport.attempt(IMDS, "GET", url, headers=HEADERS, deadline=time.monotonic() + ATTEMPT_LIMIT)
    except AttemptFailed as failure:
        return failure
