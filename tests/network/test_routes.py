"""The kernel tells of a new route, and what waits for one goes on at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from minprov.network.routes import has_route

# In a network namespace whose loopback is down there is no route to 127.0.0.1 until it is up.
LATE_LINK = r"""
import asyncio, sys, time
import minprov.wire
from minprov.network.retry import retry
from minprov.network.transport import Transport
from minprov.outcome.timeline import Timeline
from minprov.sources.imds import IMDS

URL = "http://127.0.0.1"

async def answer(reader, writer):
    request = await reader.readuntil(b"\r\n\r\n")
    print(request.split()[0].decode())
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")
    writer.close()

async def main():
    server = await asyncio.start_server(answer, "0.0.0.0", 80)
    timeline = Timeline()
    async with server, Transport(timeline) as transport:
        deadline = time.monotonic() + 1000

        async def attempt():
            return await transport.attempt(IMDS, "GET", URL, headers={}, deadline=deadline)

        async def ask():
            return await retry(attempt, deadline=deadline)

        async def report():
            goal_state = minprov.wire.GoalState("1", "container", "instance")
            return await minprov.wire.report_health(transport, URL, deadline=deadline, goal_state=goal_state)

        working = asyncio.create_task({"ask": ask, "report": report}[sys.argv[1]]())
        while not timeline.spans:
            await asyncio.sleep(0)
        await asyncio.sleep(2)
        link_up = await asyncio.create_subprocess_exec("ip", "link", "set", "lo", "up")
        await link_up.wait()
        async with asyncio.timeout(20):
            print(await working, *(span.outcome for span in timeline.spans))

asyncio.run(main())
"""
NO_LINK = r"""
import asyncio, time
from minprov.errors import ProvisioningError
from minprov.network.transport import Transport
from minprov.outcome.timeline import Timeline
from minprov.sources.imds import fetch_instance

async def main():
    timeline = Timeline()
    async with Transport(timeline) as transport:
        try:
            await fetch_instance(transport, "http://127.0.0.1", deadline=time.monotonic() + 2.5)
        except ProvisioningError as error:
            print(error.reason.phrase, error.data["detail"], len(timeline.spans))

asyncio.run(main())
"""
NO_NETLINK = """
import asyncio, socket, time
from minprov.network.routes import RouteWatch

async def main():
    create = socket.socket
    socket.socket = refuse
    with RouteWatch() as watch:
        socket.socket = create
        start = time.monotonic()
        await watch.wait_for_route("192.0.2.1", deadline=start + 0.2)
        print(time.monotonic() - start >= 0.2)

def refuse(*arguments):
    raise PermissionError

asyncio.run(main())
"""


needs_ip = pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip of iproute2")


def in_namespace(*arguments: str) -> str:
    """Return what a program printed in a network namespace of its own, whose loopback is down."""
    namespace = ["--net"] if os.geteuid() == 0 else ["--map-root-user", "--net"]
    command = ["unshare", *namespace, sys.executable, "-c", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


@needs_ip
def test_what_waits_for_a_route_is_asked_once_when_there_is_one() -> None:
    # One attempt found none; for two seconds after that only the kernel was listened to.
    assert in_namespace(LATE_LINK, "ask") == "GET\nb'body' Network is unreachable accepted\n"


@needs_ip
def test_so_is_a_report_told_once() -> None:
    expected = "POST\nDelivery(channel='xml', attempts=1) Network is unreachable accepted\n"
    assert in_namespace(LATE_LINK, "report") == expected


@needs_ip
def test_without_a_route_nothing_is_polled_and_the_error_says_so() -> None:
    assert in_namespace(NO_LINK) == "connection error querying IMDS Network is unreachable 1\n"


def test_without_netlink_a_route_is_looked_for_now_and_then() -> None:
    assert in_namespace(NO_NETLINK) == "True\n"


def test_what_is_no_address_is_left_to_the_client() -> None:
    assert has_route("name.invalid")
    assert has_route("::1")
