"""The kernel tells of a new route, and what waits for one goes on at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

# In a network namespace whose loopback is down there is no route to 127.0.0.1 until it is up.
LATE_LINK = r"""
import asyncio, sys, time
import minprov.network.transport, minprov.wire
from minprov.sources.imds import IMDS
from minprov.model import GoalState
from minprov.network.retry import RetryPolicy, retry
from minprov.outcome.timeline import Timeline

minprov.network.transport.RETRY = RetryPolicy(without_route=600)
minprov.wire.ATTEMPTS_BEFORE_JSON = 1
URL = "http://127.0.0.1"

async def answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")
    writer.close()

async def main():
    server = await asyncio.start_server(answer, "0.0.0.0", 80)
    timeline = Timeline()
    async with server, minprov.network.transport.Transport(timeline) as transport:
        deadline = time.monotonic() + 1000

        async def attempt():
            return await transport.attempt(IMDS, "GET", URL, headers={}, deadline=deadline)

        async def ask():
            return await retry(attempt, deadline=deadline)

        async def report():
            return await minprov.wire.report_health(
                transport, URL, deadline=deadline, goal_state=GoalState("1", "container", "instance")
            )

        work, requests = {"ask": (ask, 1), "report": (report, 2)}[sys.argv[1]]
        working = asyncio.create_task(work())
        while len(timeline.spans) < requests:
            await asyncio.sleep(0)
        link_up = await asyncio.create_subprocess_exec("ip", "link", "set", "lo", "up")
        await link_up.wait()
        async with asyncio.timeout(20):
            print(await working, *(span.outcome for span in timeline.spans[:requests]))

asyncio.run(main())
"""
NO_NETLINK = """
import asyncio, socket
from minprov.network.routes import RouteWatch

async def main():
    socket.socket = refuse
    with RouteWatch() as watch:
        print(watch.next_change.is_set())

def refuse(*arguments):
    raise PermissionError

asyncio.run(main())
"""


needs_ip = pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip of iproute2")


def once_linked(work: str) -> str:
    """Return what came of the work, and of the requests before the link was up."""
    namespace = ["--net"] if os.geteuid() == 0 else ["--map-root-user", "--net"]
    command = ["unshare", *namespace, sys.executable, "-c", LATE_LINK, work]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


@needs_ip
def test_what_waits_for_a_route_goes_on_when_there_is_one() -> None:
    assert once_linked("ask") == "b'body' Network is unreachable\n"


@needs_ip
def test_so_does_a_report_that_failed_by_both_channels() -> None:
    outcome = "Delivery(channel='json', attempts=2) Network is unreachable Network is unreachable\n"
    assert once_linked("report") == outcome


def test_a_sandbox_without_netlink_is_borne() -> None:
    done = subprocess.run([sys.executable, "-c", NO_NETLINK], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")
