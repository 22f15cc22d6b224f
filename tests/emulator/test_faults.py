"""Fault scripts: what a file may say, and that each step does on the wire what its name says."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import pytest
from blockbuster import blockbuster_ctx

from minprov.emulator.faults import Faults, load_faults
from minprov.emulator.instance import build_instance
from minprov.emulator.platform import Emulator, RateLimit
from minprov.emulator.vm import SAMPLE_VM
from minprov.errors import ProvisioningError, Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

INSTANCE = "/metadata/instance?api-version=2023-11-15"
IMDS_HEADERS = {"Metadata": "true"}


@pytest.fixture(autouse=True)
def no_blocking_call() -> Iterator[None]:
    """Fail a test in which the event loop waits for a file, a lock or a socket."""
    with blockbuster_ctx():
        yield


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Faults]:
    def load(text: str) -> Faults:
        (tmp_path / "faults.toml").write_text(text)
        return load_faults(tmp_path / "faults.toml")

    return load


def run(faults: Faults, test: Callable[[Emulator, aiohttp.ClientSession], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Emulator(faults=faults) as platform, aiohttp.ClientSession(headers=IMDS_HEADERS) as session:
            await test(platform, session)

    asyncio.run(main(), debug=True)


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def ask(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the request for the instance document, and leave what comes back to the caller."""
    reader, writer = await connect(url)
    writer.write(f"GET {INSTANCE} HTTP/1.1\r\nHost: test\r\nMetadata: true\r\n\r\n".encode())
    return reader, writer


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def refusals_until_it_listens(url: str) -> int:
    for refused in itertools.count():
        with suppress(ConnectionRefusedError):
            _, writer = await connect(url)
            await hang_up(writer)
            return refused
    raise AssertionError("never reached")


async def statuses(session: aiohttp.ClientSession, url: str, count: int) -> list[int]:
    found = []
    for _ in range(count):
        async with session.get(url) as response:
            await response.read()
            found.append(response.status)
    return found


# The file


def test_steps_are_taken_in_order_and_then_all_is_well(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\nstatus = 503\ntimes = 2\n[[instance]]\nstatus = 429\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        assert await statuses(session, platform.imds_url + INSTANCE, 5) == [503, 503, 429, 200, 200]
        assert [item.verdict for item in platform.requests] == ["scripted"] * 3 + ["accepted"] * 2
        assert [item.status for item in platform.requests] == [503, 503, 429, 200, 200]

    run(faults, guest)


def test_a_step_for_ever_does_not_end(script: Callable[[str], Faults]) -> None:
    faults = script('[[instance]]\nstatus = 500\ntimes = "forever"\n')
    assert all(faults.step("instance", earlier).status == 500 for earlier in (0, 1, 10**9))


def test_a_step_is_of_its_endpoint_alone(script: Callable[[str], Faults]) -> None:
    faults = script("[[imds-versions]]\nstatus = 500\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        assert await statuses(session, platform.imds_url + INSTANCE, 1) == [200]
        assert await statuses(session, platform.imds_url + "/metadata/versions", 2) == [500, 200]

    run(faults, guest)


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("[[instances]]\nstatus = 500", "instances", "instance"),
        ("[[instance]]\nstatuses = 500", "instance[0].statuses", "status"),
        ("[[instance]]\n[[instance]]\nstatus = '500'", "instance[1].status", None),
        ("[[instance]]\nstatus = 99", "instance[0].status", None),
        ("[[instance]]\ntimes = -1", "instance[0].times", None),
        ("[[instance]]\ntimes = 'always'", "instance[0].times", None),
        ("[[instance]]\ndrop = 'fin'", "instance[0].drop", None),
        ("[[instance]]\nendless = 'body'", "instance[0].endless", None),
        ("[[instance]]\ndelay = true", "instance[0].delay", None),
        ("[[instance]]\nheaders = { Retry-After = 1 }", "instance[0].headers", None),
        ("[[instance]]\nbody = { base64 = '!' }", "instance[0].body", None),
        ("[[instance]]\nbody = { file = 'missing' }", "instance[0].body", None),
        ("[[instance]]\nchange = { host-name = 'x' }", "instance[0].change.host-name", "hostname"),
        ("[instance]\nstatus = 500", "instance", None),
        ("instance = [500]", "instance[0]", None),
        ("[[imds]]\nrefuse = true", "imds", None),
        ("[imds]\nrefuse = false", "imds.refuse", None),
        ("[imds]\nrefuse = 1\nignore = 1", "imds.ignore", None),
        ("[imds]\nlimit = 'few'", "imds.limit", None),
        ("[imds]\nsigned-only = 1", "imds.signed-only", None),
    ],
)
def test_a_mistake_in_the_file_is_named(
    script: Callable[[str], Faults], text: str, key: str, nearest: str | None
) -> None:
    with pytest.raises(ProvisioningError) as caught:
        script(text)
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert caught.value.data["key"] == key
    assert caught.value.data.get("nearest") == nearest
    assert caught.value.data["file"].endswith("faults.toml")


@pytest.mark.parametrize("content", [b"[", b"\xff"])
def test_what_is_no_toml_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "faults.toml").write_bytes(content)
    with pytest.raises(ProvisioningError):
        load_faults(tmp_path / "faults.toml")


# The journey


def test_headers_are_added_to_the_reply(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\nstatus = 307\nheaders = { Retry-After = '7', Location = '/elsewhere' }\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        async with session.get(platform.imds_url + INSTANCE, allow_redirects=False) as response:
            assert (response.status, await response.read()) == (307, b"")
            assert response.headers["Retry-After"] == "7"
            assert response.headers["Location"] == "/elsewhere"

    run(faults, guest)


def test_a_body_and_its_type_can_be_anything(script: Callable[[str], Faults]) -> None:
    faults = script(
        "[[instance]]\nbody = '<html>'\nheaders = { Content-Type = 'text/html' }\n"
        "[[instance]]\nbody = { garbage = 300 }\n[[instance]]\nbody = ''"
    )

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        async with session.get(platform.imds_url + INSTANCE) as response:
            assert (response.status, response.content_type, await response.read()) == (200, "text/html", b"<html>")
        async with session.get(platform.imds_url + INSTANCE) as response:
            garbage = await response.read()
            assert (response.content_type, len(garbage)) == ("application/json", 300)
            assert not garbage.isascii()
        async with session.get(platform.imds_url + INSTANCE) as response:
            assert (response.status, await response.read()) == (200, b"")

    run(faults, guest)


def test_a_replacement_keeps_the_rest_of_the_document(script: Callable[[str], Faults]) -> None:
    faults = script(
        "[[goal-state]]\nreplace = { '<?xml' = '\\ufeff<?xml', '<Incarnation>1</Incarnation>' = '' }\n".replace(
            "'", '"'
        )
    )

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        url = f"{platform.wireserver_url}/machine?comp=goalstate"
        async with session.get(url, headers={"x-ms-version": "2012-11-30"}) as response:
            body = await response.read()
        assert body.startswith(b"\xef\xbb\xbf<?xml")
        assert b"Incarnation>" not in body
        assert SAMPLE_VM.container_id.encode() in body

    run(faults, guest)


def test_a_replacement_that_replaces_nothing_is_an_error(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\nreplace = { 'no such text' = '' }\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        assert await statuses(session, platform.imds_url + INSTANCE, 2) == [500, 200]
        assert "no such text" in str(platform.requests[0].reply.refusal)

    run(faults, guest)


def test_padding_makes_a_true_document_too_large(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\npad = 3_000_000\n[[instance]]\npad = 3_000_000\nchunked = true\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        for length in (3_000_000, None):
            async with session.get(platform.imds_url + INSTANCE) as response:
                assert response.content_length == length
                body = await response.read()
            assert len(body) == 3_000_000
            assert body.rstrip().endswith(b"}")

    run(faults, guest)


def test_a_compressed_body_unpacks_to_the_padded_one(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\npad = 3_000_000\ngzip = true\n")

    async def guest(platform: Emulator, _session: aiohttp.ClientSession) -> None:
        async with (
            aiohttp.ClientSession(headers=IMDS_HEADERS, auto_decompress=False) as session,
            session.get(platform.imds_url + INSTANCE) as response,
        ):
            body = await response.read()
            assert response.headers["Content-Encoding"] == "gzip"
        assert len(body) < 30_000
        assert len(gzip.decompress(body)) == 3_000_000

    run(faults, guest)


def test_chunked_replies_have_no_length(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\nchunked = true\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        async with session.get(platform.imds_url + INSTANCE) as response:
            assert response.headers["Transfer-Encoding"] == "chunked"
            assert "Content-Length" not in response.headers
            assert (await response.json())["compute"]["vmId"] == SAMPLE_VM.vm_id

    run(faults, guest)


def test_a_delay_comes_before_the_first_byte(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\ndelay = 0.1\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        start = time.monotonic()
        async with session.get(platform.imds_url + INSTANCE):
            assert 0.1 <= time.monotonic() - start < 5

    run(faults, guest)


def test_a_dripping_body_comes_byte_by_byte(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\nbody = 'abcd'\ndrip = 0.03\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        start = time.monotonic()
        async with session.get(platform.imds_url + INSTANCE) as response:
            pieces = [piece async for piece in response.content.iter_any()]
        assert pieces == [b"a", b"b", b"c", b"d"]
        assert time.monotonic() - start >= 0.09

    run(faults, guest)


@pytest.mark.parametrize("chunked", ["", "chunked = true\n"])
def test_a_truncated_reply_ends_before_its_announced_length(script: Callable[[str], Faults], chunked: str) -> None:
    faults = script(f"[[instance]]\ntruncate = 10\n{chunked}")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        reader, writer = await ask(platform.imds_url)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        await hang_up(writer)
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert body[-10:] == b'{"compute"'
        assert body[:-10] == (b"" if not chunked else body.partition(b"\r\n")[0] + b"\r\n")
        assert await statuses(session, platform.imds_url + INSTANCE, 1) == [200]

    run(faults, guest)


def test_a_client_library_sees_a_truncated_reply_as_an_error(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\ntruncate = 10\n[[instance]]\ntruncate = 10\nchunked = true\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        for _ in range(2):
            with pytest.raises(aiohttp.ClientPayloadError):
                await statuses(session, platform.imds_url + INSTANCE, 1)

    run(faults, guest)


def test_a_dropped_request_gets_no_byte(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\ndrop = 'close'\n")

    async def guest(platform: Emulator, _session: aiohttp.ClientSession) -> None:
        reader, writer = await ask(platform.imds_url)
        assert await reader.read() == b""
        await hang_up(writer)
        (exchange,) = platform.requests
        assert (exchange.status, exchange.verdict) == (None, "scripted")

    run(faults, guest)


@pytest.mark.parametrize("sent", [None, 0, 10])
def test_a_reset_is_a_reset_and_no_orderly_end(script: Callable[[str], Faults], sent: int | None) -> None:
    faults = script("[[instance]]\ndrop = 'reset'\n" + ("" if sent is None else f"truncate = {sent}\n"))

    async def guest(platform: Emulator, _session: aiohttp.ClientSession) -> None:
        reader, writer = await ask(platform.imds_url)
        with pytest.raises(ConnectionResetError):
            while await reader.read(1):
                pass
        writer.close()

    run(faults, guest)


@pytest.mark.parametrize("sent", [None, 0, 10])
def test_a_stalled_reply_neither_goes_on_nor_ends(script: Callable[[str], Faults], sent: int | None) -> None:
    faults = script("[[instance]]\ndrop = 'stall'\n" + ("" if sent is None else f"truncate = {sent}\n"))

    async def main() -> None:
        async with Emulator(faults=faults) as platform, aiohttp.ClientSession(headers=IMDS_HEADERS) as session:
            reader, writer = await ask(platform.imds_url)
            if sent is not None:
                await reader.readuntil(b"\r\n\r\n")
                assert len(await reader.readexactly(sent)) == sent
            # Others are served meanwhile, and in all that time nothing more comes here.
            assert await statuses(session, platform.imds_url + INSTANCE, 3) == [200] * 3
            assert not reader.at_eof()
        assert await reader.read() == b"", "the end of the emulator ends the stall, without another byte"
        await hang_up(writer)

    asyncio.run(main(), debug=True)


def test_raw_bytes_need_not_be_http(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\nraw = 'SSH-2.0-OpenSSH_9.2\\r\\n'\n".replace("'", '"'))

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        reader, writer = await ask(platform.imds_url)
        assert await reader.read() == b"SSH-2.0-OpenSSH_9.2\r\n"
        await hang_up(writer)
        assert await statuses(session, platform.imds_url + INSTANCE, 1) == [200]

    run(faults, guest)


def test_a_guest_that_hangs_up_harms_nobody(script: Callable[[str], Faults], caplog: pytest.LogCaptureFixture) -> None:
    faults = script("[[instance]]\npad = 20_000_000\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        reader, writer = await ask(platform.imds_url)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        assert await statuses(session, platform.imds_url + INSTANCE, 1) == [200]

    run(faults, guest)
    assert not [record for record in caplog.records if record.name.startswith("aiohttp")]


@pytest.mark.parametrize(
    "step", ["delay = 1000", "drip = 1000", "drop = 'stall'", "pad = 1_000_000_000", "endless = 'trailers'"]
)
def test_the_end_of_the_emulator_does_not_wait_for_a_fault(script: Callable[[str], Faults], step: str) -> None:
    faults = script(f"[[instance]]\n{step}\n")

    async def main() -> float:
        async with Emulator(faults=faults) as platform:
            _, writer = await ask(platform.imds_url)
            async with aiohttp.ClientSession(headers=IMDS_HEADERS) as session:  # when it has an answer, the first waits
                await statuses(session, platform.imds_url + INSTANCE, 1)
            start = time.monotonic()
        writer.transport.abort()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "no task is left behind"
        return time.monotonic() - start

    assert asyncio.run(main(), debug=True) < 5


# The platform's mind


READY = {"state": "Ready"}
HEALTH = "/provisioning/health"


@pytest.mark.parametrize(
    ("step", "heard"),
    [
        ("delay = 0.01", True),
        ("truncate = 0", True),
        ("headers = { X = 'y' }", True),
        ("status = 503", False),
        ("body = 'x'", False),
        ("raw = 'x'", False),
        ("drop = 'close'", False),
        ("endless = 'headers'", False),
        ("drop = 'close'\nheard = true", True),
        ("status = 500\nheard = true", True),
        ("delay = 0\nheard = false", False),
    ],
)
def test_a_report_counts_if_the_reply_is_the_platforms_own_or_the_script_says_so(
    script: Callable[[str], Faults], step: str, heard: bool
) -> None:
    faults = script(f"[[provisioning-health]]\n{step}\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        try:
            async with session.post(platform.wireserver_url + HEALTH, json=READY) as response:
                await response.read()
        except aiohttp.ClientError:
            pass
        assert [report.state for report in platform.health_reports] == (["Ready"] if heard else [])

    run(faults, guest)


def test_a_change_comes_before_the_request_is_judged(script: Callable[[str], Faults]) -> None:
    faults = script("[[instance]]\n[[instance]]\nchange = { hostname = 'late-01', incarnation = 2 }\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        names = []
        for _ in range(3):
            async with session.get(platform.imds_url + INSTANCE) as response:
                names.append((await response.json())["compute"]["osProfile"]["computerName"])
        assert names == [SAMPLE_VM.hostname, "late-01", "late-01"]
        assert platform.vm.incarnation == 2

    run(faults, guest)


# The servers


def test_a_server_that_refuses_for_ever_has_an_address_and_no_listener(script: Callable[[str], Faults]) -> None:
    faults = script("[imds]\nrefuse = true\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        with pytest.raises(ConnectionRefusedError):
            await connect(platform.imds_url)
        assert await statuses(session, platform.wireserver_url + "/?comp=versions", 1) == [200]

    run(faults, guest)


def test_a_late_server_refuses_and_then_serves(script: Callable[[str], Faults]) -> None:
    faults = script("[imds]\nrefuse = 0.1\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        assert await refusals_until_it_listens(platform.imds_url)
        assert await statuses(session, platform.imds_url + INSTANCE, 1) == [200]

    run(faults, guest)


def test_a_server_that_ignores_lets_connections_time_out(script: Callable[[str], Faults]) -> None:
    faults = script("[imds]\nignore = true\n")

    async def guest(platform: Emulator, _session: aiohttp.ClientSession) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connect(platform.imds_url)

    run(faults, guest)


def test_a_server_that_ignores_for_a_while_serves_whoever_tries_again(script: Callable[[str], Faults]) -> None:
    faults = script("[imds]\nignore = 0.1\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        # The first SYN is lost; the kernel sends the next a second later.
        assert await statuses(session, platform.imds_url + INSTANCE, 1) == [200]

    run(faults, guest)


def test_a_server_that_counts_from_the_first_request_refuses_whoever_has_asked_no_other(
    script: Callable[[str], Faults],
) -> None:
    faults = script("[wireserver]\nrefuse = 0.001\nfrom-first-request = true\n")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        for _ in range(20):
            with pytest.raises(ConnectionRefusedError):
                await connect(platform.wireserver_url)
        assert await statuses(session, platform.imds_url + INSTANCE, 1) == [200]
        await refusals_until_it_listens(platform.wireserver_url)

    run(faults, guest)


@pytest.mark.parametrize("truncate", ["", "truncate = 100\n"])
def test_a_status_needs_no_name(script: Callable[[str], Faults], truncate: str) -> None:
    faults = script(f"[[instance]]\nstatus = 499\n{truncate}")

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        assert await statuses(session, platform.imds_url + INSTANCE, 1) == [499]

    run(faults, guest)


def test_a_limit_counts_what_it_admitted_in_the_last_second() -> None:
    limit = RateLimit(2)
    assert [limit.admits(at_ms) for at_ms in (0, 400, 999, 1000, 1001, 1399, 1400)] == [
        *(True, True, False),
        *(True, False, False, True),
    ]
    assert all(RateLimit(None).admits(0) for _ in range(100))


# "requests to IMDS are limited to 5 requests per second" (instance-metadata-service.md, "Rate limiting")
def test_a_request_over_the_limit_of_its_server_gets_429(script: Callable[[str], Faults]) -> None:
    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        assert await statuses(session, platform.imds_url + INSTANCE, 1) == [429]
        assert await statuses(session, platform.wireserver_url + "/?comp=versions", 1) == [200]
        assert platform.requests[0].verdict == "refused"

    run(script("[imds]\nlimit = 0\n"), guest)


# The header and its scheme are those of GuestProxyAgent: proxy_agent_shared/src/hyper_client.rs.
def test_a_server_that_takes_signed_requests_only_refuses_others(script: Callable[[str], Faults]) -> None:
    signature = {"x-ms-azure-host-authorization": "Azure-HMAC-SHA256 key signature"}

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        url = platform.wireserver_url + "/?comp=versions"
        assert await statuses(session, url, 1) == [401]
        async with session.get(url, headers=signature) as response:
            assert response.status == 200
        assert await statuses(session, platform.imds_url + INSTANCE, 1) == [200]
        assert [exchange.verdict for exchange in platform.requests] == ["refused", "accepted", "accepted"]

    run(script("[wireserver]\nsigned-only = true\n"), guest)


def test_the_same_script_gives_the_same_garbage(script: Callable[[str], Faults]) -> None:
    text = "[[instance]]\nbody = { garbage = 64 }\n"
    assert script(text) == script(text)


def test_what_a_guest_gets_without_faults_is_the_instance_document() -> None:
    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        async with session.get(platform.imds_url + INSTANCE) as response:
            document = await response.json()
        assert document == build_instance(SAMPLE_VM, api_version="2023-11-15", extended=False)

    run(Faults(), guest)
