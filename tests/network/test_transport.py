"""The clients against the emulated platform: what they send, what they bear, what they call the ways to fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import pytest

from minprov import limits
from minprov.emulator.faults import Faults, load_faults
from minprov.emulator.platform import Emulator
from minprov.emulator.vm import SAMPLE_VM
from minprov.errors import ProvisioningError, Reason
from minprov.model import GoalState, InstanceMetadata
from minprov.network.retry import AttemptFailed, retry
from minprov.network.transport import MAX_ANSWER, Transport
from minprov.outcome.timeline import Timeline
from minprov.sources import imds
from minprov.sources.imds import IMDS, fetch_instance
from minprov.wire import Delivery, fetch_goal_state, report_health

T = TypeVar("T")
Work = Callable[[Transport, Emulator, float], Awaitable[T]]


def on_platform(work: Work[T], script: str = "", *, limit: float = 30.0) -> tuple[T, list[str]]:
    """Return what a client returned, and which endpoints the platform saw asked."""

    async def main() -> tuple[T, list[str]]:
        faults = load_script(script)
        async with Emulator(SAMPLE_VM, faults=faults) as platform, Transport(Timeline()) as transport:
            result = await work(transport, platform, time.monotonic() + limit)
            return result, [exchange.endpoint or "?" for exchange in platform.requests]

    return asyncio.run(main(), debug=True)


def load_script(script: str) -> Faults:
    path = Path(SCRIPTS / "faults.toml")
    path.write_text(script)
    return load_faults(path)


SCRIPTS = Path()


@pytest.fixture(autouse=True)
def _scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SCRIPTS", tmp_path)


async def instance(transport: Transport, platform: Emulator, deadline: float) -> InstanceMetadata:
    return await fetch_instance(transport, platform.imds_url, deadline=deadline)


async def goal_state(transport: Transport, platform: Emulator, deadline: float) -> GoalState:
    return await fetch_goal_state(transport, platform.wireserver_url, deadline=deadline)


async def ready(transport: Transport, platform: Emulator, deadline: float) -> Delivery:
    first = await fetch_goal_state(transport, platform.wireserver_url, deadline=deadline)
    return await report_health(transport, platform.wireserver_url, goal_state=first, deadline=deadline)


async def not_ready(transport: Transport, platform: Emulator, deadline: float) -> Delivery:
    delivery = await report_health(transport, platform.wireserver_url, failure="result=error|<&>", deadline=deadline)
    report = platform.health_reports[-1]
    assert (report.state, report.substatus) == ("NotReady", "ProvisioningFailed")
    assert report.description == "result=error|<&>"
    return delivery


def failure_of(work: Work[object], script: str, *, limit: float = 30.0) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        on_platform(work, script, limit=limit)
    return caught.value


def last_failure_of(work: Work[object], script: str, *, attempts: int = 2) -> ProvisioningError:
    """Return the failure when the deadline passes within an attempt, however long attempts take on this machine."""
    pauses = 0

    async def sleep(_seconds: float) -> None:
        nonlocal pauses
        pauses += 1

    def clock() -> float:
        return time.monotonic() + (1000.0 if pauses >= attempts - 1 else 0.0)

    with patch.dict(retry.__kwdefaults__, {"clock": clock, "sleep": sleep}):
        return failure_of(work, script)


def test_a_healthy_platform_is_asked_once_for_each_thing() -> None:
    async def everything(transport: Transport, platform: Emulator, deadline: float) -> Delivery:
        assert (await instance(transport, platform, deadline)).admin_username == SAMPLE_VM.username
        return await ready(transport, platform, deadline)

    delivery, asked = on_platform(everything)
    assert delivery == Delivery("xml", 1)
    assert asked == ["instance", "goal-state", "health"]


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 502, 503, 504])
def test_imds_is_asked_again_after(status: int) -> None:
    found, asked = on_platform(instance, f"[[instance]]\nstatus = {status}\ntimes = 2")
    assert found.vm_id == SAMPLE_VM.vm_id
    assert asked == ["instance"] * 3


@pytest.mark.parametrize("status", [301, 307, 401, 403, 405])
def test_imds_is_not_asked_again_after(status: int) -> None:
    script = f"[[instance]]\nstatus = {status}\nheaders = {{ Location = '/elsewhere' }}"
    error = failure_of(instance, script)
    assert error.reason is Reason.IMDS_HTTP
    assert (error.data["http_code"], error.data["attempts"]) == (str(status), "1")


def test_an_unknown_api_version_is_followed_by_the_older_one() -> None:
    script = '[[instance]]\nchange = { imds-api-versions = ["2019-06-01"] }'
    found, asked = on_platform(instance, script)
    assert (found.vm_id, found.admin_username) == (SAMPLE_VM.vm_id, None)
    assert asked == ["instance"] * 5


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_stray_bad_requests_do_not_leave_it_at_the_older_version(times: int) -> None:
    found, _ = on_platform(instance, f"[[instance]]\nstatus = 400\ntimes = {times}")
    assert found.admin_username == SAMPLE_VM.username


def test_bad_requests_for_good_are_the_reason() -> None:
    error = last_failure_of(instance, "[[instance]]\nstatus = 400\ntimes = 'forever'", attempts=7)
    assert (error.reason, error.data["http_code"]) == (Reason.IMDS_HTTP, "400")


BODIES = {
    "truncated": "truncate = 20",
    "reset within the body": "truncate = 20\ndrop = 'reset'",
    "reset before the answer": "drop = 'reset'",
    "closed before the answer": "drop = 'close'",
    "garbage": "body = { garbage = 300 }",
    "empty": "body = ''",
    "oversize": "pad = 2000000",
    "not HTTP": "raw = 'SSH-2.0-OpenSSH'",
    "compressed": "gzip = true",
}


@pytest.mark.parametrize("fault", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(("work", "endpoint"), [(instance, "instance"), (goal_state, "goal-state")])
def test_an_answer_that_is_broken_is_asked_for_again(work: Work[object], endpoint: str, fault: str) -> None:
    _, asked = on_platform(work, f"[[{endpoint}]]\n{fault}")
    assert asked == [endpoint] * 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("[[instance]]\ndrop = 'reset'\ntimes = 'forever'", Reason.IMDS_CONNECTION),
        ("[imds]\nrefuse = true", Reason.IMDS_CONNECTION),
        ("[[instance]]\nbody = '['\ntimes = 'forever'", Reason.IMDS_PARSE),
        ("[[instance]]\nbody = '{\"compute\": 1}'\ntimes = 'forever'", Reason.IMDS_INVALID),
        ("[[instance]]\nstatus = 500\ntimes = 'forever'", Reason.IMDS_HTTP),
    ],
)
def test_the_last_fault_of_imds_is_the_reason(fault: str, reason: Reason) -> None:
    error = last_failure_of(instance, fault)
    assert (error.reason, error.data["attempts"]) == (reason, "2")


def test_the_deadline_ends_an_attempt() -> None:
    start = time.monotonic()
    error = failure_of(instance, "[[instance]]\ndrop = 'stall'", limit=1.5)
    assert time.monotonic() - start < 10
    assert (error.reason, error.data["attempts"]) == (Reason.IMDS_READ_TIMEOUT, "1")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("[[goal-state]]\ndrop = 'close'\ntimes = 'forever'", Reason.WIRESERVER_CONNECTION),
        ("[wireserver]\nrefuse = true", Reason.WIRESERVER_CONNECTION),
        ("[[goal-state]]\nbody = '<a/>'\ntimes = 'forever'", Reason.GOAL_STATE_INVALID),
        ("[[goal-state]]\nstatus = 503\ntimes = 'forever'", Reason.WIRESERVER_HTTP),
    ],
)
def test_the_last_fault_of_the_goal_state_is_the_reason(fault: str, reason: Reason) -> None:
    assert last_failure_of(goal_state, fault).reason is reason


def test_a_refused_connection_says_so() -> None:
    assert last_failure_of(goal_state, "[wireserver]\nrefuse = true").data["detail"] == "Connection refused"


def test_a_410_of_imds_is_final_once_it_has_lasted_for_seventy_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.GONE_LIMIT == 70.0
    monkeypatch.setattr(imds, "GONE_LIMIT", 0.3)
    error = failure_of(instance, "[[instance]]\nstatus = 410\ntimes = 'forever'")
    assert (error.reason, error.data["http_code"]) == (Reason.IMDS_HTTP, "410")
    assert int(error.data["attempts"]) > 1


def test_retry_after_is_honoured() -> None:
    start = time.monotonic()
    on_platform(instance, "[[instance]]\nstatus = 429\nheaders = { Retry-After = '1' }")
    assert time.monotonic() - start >= 1


def test_a_stale_incarnation_is_followed_by_a_new_goal_state_at_once() -> None:
    delivery, asked = on_platform(ready, "[[health]]\nchange = { incarnation = 7 }")
    assert delivery == Delivery("xml", 2)
    assert asked == ["goal-state", "health", "goal-state", "health"]


def test_every_further_attempt_has_a_new_goal_state() -> None:
    delivery, asked = on_platform(ready, "[[health]]\nstatus = 503\ntimes = 2")
    assert delivery == Delivery("xml", 3)
    assert asked == ["goal-state", "health"] * 3


def test_json_is_the_second_channel_once_xml_failed_three_times() -> None:
    delivery, asked = on_platform(ready, "[[health]]\nstatus = 500\ntimes = 'forever'")
    assert delivery == Delivery("json", 3)
    assert asked == ["goal-state", "health"] * 3 + ["provisioning-health"]


def test_a_channel_that_asks_for_too_long_a_wait_is_left_for_the_other() -> None:
    script = '[[goal-state]]\nstatus = 503\nheaders = { Retry-After = "60" }\ntimes = "forever"'
    delivery, log = on_platform(not_ready, script, limit=10.0)
    assert delivery == Delivery(channel="json", attempts=1)
    assert len(log) == 2


@pytest.mark.parametrize(("xml_times", "channel"), [("1", "xml"), ("'forever'", "json")])
def test_each_channel_is_tried_once_more_before_both_are_given_up(xml_times: str, channel: str) -> None:
    both = "".join(
        f'[[{name}]]\nstatus = 429\nheaders = {{ Retry-After = "60" }}\ntimes = {times}\n'
        for name, times in (("goal-state", xml_times), ("provisioning-health", "1"))
    )
    delivery, _ = on_platform(not_ready, both, limit=1.5)
    assert delivery == Delivery(channel=channel, attempts=2)


@pytest.mark.parametrize("endless", ["headers", "one header", "trailers"])
def test_an_endless_answer_ends_at_the_limit(endless: str) -> None:
    beginning, piece = {
        "headers": ("", "X-Filler: " + "x" * 4000 + "\r\n"),
        "one header": ("X-Filler: ", "x" * 4000),
        "trailers": ("Transfer-Encoding: chunked\r\n\r\n0\r\n", "X-Filler: " + "x" * 4000 + "\r\n"),
    }[endless]
    sent = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(f"HTTP/1.1 200 OK\r\n{beginning}".encode())
        with suppress(ConnectionError):
            while True:
                writer.write(piece.encode())
                await writer.drain()
                sent += len(piece)

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server, Transport(Timeline()) as transport:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(AttemptFailed):
                await transport.attempt(IMDS, "GET", url, headers={}, deadline=time.monotonic() + 20.0)

    asyncio.run(main())
    assert sent < MAX_ANSWER + (16 << 20)  # and what the sockets between hold


def test_json_needs_no_goal_state() -> None:
    delivery, _ = on_platform(not_ready, "[[goal-state]]\nstatus = 500\ntimes = 'forever'")
    assert delivery.channel == "json"


def test_json_follows_at_once_where_xml_is_refused_for_good() -> None:
    delivery, asked = on_platform(ready, "[[health]]\nstatus = 400\ntimes = 'forever'")
    assert delivery == Delivery("json", 1)
    assert asked == ["goal-state", "health", "provisioning-health"]


@pytest.mark.parametrize("silent", ["goal-state", "health"])
def test_a_channel_that_does_not_answer_leaves_the_other_half_of_the_time(silent: str) -> None:
    delivery, asked = on_platform(not_ready, f"[[{silent}]]\ndrop = 'stall'\ntimes = 'forever'", limit=2)
    assert delivery == Delivery("json", 1)
    assert asked[-2:] == [silent, "provisioning-health"]


@pytest.mark.parametrize(
    "fault", ["pad = 2000000", "pad = 100\ntruncate = 20", "pad = 100\ntruncate = 20\ndrop = 'stall'"]
)
def test_a_report_that_was_accepted_is_reported_whatever_becomes_of_the_answers_body(fault: str) -> None:
    delivery, asked = on_platform(ready, f"[[health]]\n{fault}")
    assert delivery == Delivery("xml", 1)
    assert asked == ["goal-state", "health"]


def test_neither_channel_is_given_up() -> None:
    script = "[[health]]\nstatus = 500\ntimes = 4\n[[provisioning-health]]\nstatus = 500\ntimes = 'forever'"
    delivery, _ = on_platform(ready, script)
    assert delivery == Delivery("xml", 5)


def test_a_failure_is_reported_with_its_description() -> None:
    delivery, _ = on_platform(not_ready)
    assert delivery == Delivery("xml", 1)


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    found, _ = on_platform(instance)
    assert found.vm_id == SAMPLE_VM.vm_id


def test_no_cookie_is_sent_back() -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: id=1; Path=/\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, Transport(Timeline()) as transport:
            url = "http://127.0.0.1:{1}/".format(*server.sockets[0].getsockname())
            for _ in range(2):
                deadline = time.monotonic() + 30
                assert await transport.attempt(IMDS, "GET", url, headers={}, deadline=deadline) == b"{}"

    asyncio.run(main())
    assert len(heads) == 2
    assert not any(b"cookie" in head.lower() for head in heads)


def test_every_attempt_is_on_the_timeline() -> None:
    timeline = Timeline()

    async def main() -> None:
        faults = load_script("[[instance]]\nstatus = 500\n[[instance]]\ntruncate = 9\ndrop = 'reset'")
        async with Emulator(SAMPLE_VM, faults=faults) as platform, Transport(timeline) as transport:
            await instance(transport, platform, time.monotonic() + 30)

    asyncio.run(main())
    assert [(span.name, span.outcome) for span in timeline.spans] == [
        ("IMDS GET", "500"),
        ("IMDS GET", "the body ended before it was complete"),
        ("IMDS GET", "accepted"),
    ]
    assert all(0 < span.start_ms <= span.end_ms for span in timeline.spans)
