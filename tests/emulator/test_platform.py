"""The emulated platform over real sockets: what a guest that does everything right gets, and what the record shows."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import aiohttp
import pytest
from blockbuster import blockbuster_ctx

from minprov.emulator.exchange import HealthReport
from minprov.emulator.media import media_files
from minprov.emulator.ovf_env import build_ovf_env
from minprov.emulator.platform import Emulator
from minprov.emulator.sample import emulated_platform, sample_media
from minprov.emulator.vm import SAMPLE_VM

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

WIRE_HEADERS = {"x-ms-version": "2012-11-30", "x-ms-agent-name": "test"}
XML_HEADERS = WIRE_HEADERS | {"Content-Type": "text/xml; charset=utf-8"}
INSTANCE = "/metadata/instance?api-version=2023-11-15&extended=true"


def health_xml(ids: list[str], health: str) -> str:
    incarnation, container_id, instance_id = ids
    return (
        f"<Health><GoalStateIncarnation>{incarnation}</GoalStateIncarnation><Container>"
        f"<ContainerId>{container_id}</ContainerId><RoleInstanceList><Role><InstanceId>{instance_id}</InstanceId>"
        f"<Health>{health}</Health></Role></RoleInstanceList></Container></Health>"
    )


READY = "<State>Ready</State>"


@pytest.fixture(autouse=True)
def no_blocking_call() -> Iterator[None]:
    """Fail a test in which the event loop waits for a file, a lock or a socket."""
    with blockbuster_ctx():
        yield


def run(test: Callable[[Emulator, aiohttp.ClientSession], Awaitable[None]], emulator: Emulator | None = None) -> None:
    """Run a test against an emulator under asyncio's debug mode."""

    async def main() -> None:
        async with emulator or Emulator() as platform, aiohttp.ClientSession() as session:
            await test(platform, session)

    asyncio.run(main(), debug=True)


async def fetch(session: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, bytes]:
    async with session.get(url, headers=headers) as response:
        return response.status, await response.read()


def test_a_guest_that_follows_the_protocol_is_heard() -> None:
    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        status, body = await fetch(session, f"{platform.wireserver_url}/machine/?comp=goalstate", **WIRE_HEADERS)
        assert status == 200
        root = ElementTree.fromstring(body)
        ids = [root.findtext(f".//{tag}") or "" for tag in ("Incarnation", "ContainerId", "InstanceId")]
        assert ids == [str(SAMPLE_VM.incarnation), SAMPLE_VM.container_id, SAMPLE_VM.instance_id]

        url = f"{platform.wireserver_url}/machine?comp=health"
        async with session.post(url, headers=XML_HEADERS, data=health_xml(ids, READY)) as response:
            assert response.status == 200
        assert platform.health_reports == [HealthReport(channel="xml", state="Ready")]
        assert [(item.endpoint, item.verdict) for item in platform.requests] == [
            ("goal-state", "accepted"),
            ("health", "accepted"),
        ]

    run(guest)


def test_json_health_needs_no_goal_state() -> None:
    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        report = {"state": "NotReady", "details": {"subStatus": "ProvisioningFailed", "description": "no disc"}}
        async with session.post(f"{platform.wireserver_url}/provisioning/health", json=report) as response:
            assert response.status == 201
        (heard,) = platform.health_reports
        assert heard == HealthReport(
            channel="json", state="NotReady", substatus="ProvisioningFailed", description="no disc"
        )
        assert await platform.wait_for_health("NotReady") == heard

    run(guest)


def test_a_reply_to_head_has_no_body_and_the_connection_goes_on() -> None:
    async def main() -> bytes:
        async with Emulator() as platform:
            host, _, port = platform.imds_url.removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"HEAD /metadata/versions HTTP/1.1\r\nHost: test\r\n\r\n")
            writer.write(b"GET /metadata/versions HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            replies = await reader.read()
            writer.close()
            await writer.wait_closed()
            return replies

    first, second, third = asyncio.run(main(), debug=True).split(b"HTTP/1.1 ")
    assert (first, second[:3], third[:3]) == (b"", b"405", b"400")
    assert second.endswith(b"\r\n\r\n")


def test_every_linked_document_is_served() -> None:
    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        _, body = await fetch(session, f"{platform.wireserver_url}/machine?comp=goalstate", **WIRE_HEADERS)
        links = {item.tag: item.text or "" for item in ElementTree.fromstring(body).iterfind(".//Configuration/*")}
        for tag in ("HostingEnvironmentConfig", "SharedConfig", "ExtensionsConfig", "FullConfig"):
            status, document = await fetch(session, links[tag], **WIRE_HEADERS)
            assert (tag, status) == (tag, 200)
            assert ElementTree.fromstring(document).get("goalStateIncarnation") == str(SAMPLE_VM.incarnation)

    run(guest)


def test_imds_and_ovf_env_tell_of_the_same_vm() -> None:
    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        status, body = await fetch(session, platform.imds_url + INSTANCE, Metadata="true")
        assert status == 200
        compute = json.loads(body)["compute"]
        profile = compute["osProfile"]
        ovf_env = ElementTree.fromstring(build_ovf_env(SAMPLE_VM))
        azure = "{http://schemas.microsoft.com/windowsazure}"
        assert profile["computerName"] == ovf_env.findtext(f".//{azure}HostName") == SAMPLE_VM.hostname
        assert profile["adminUsername"] == ovf_env.findtext(f".//{azure}UserName") == SAMPLE_VM.username
        keys = [item.text for item in ovf_env.iterfind(f".//{azure}PublicKey/{azure}Value")]
        assert [item["keyData"] for item in compute["publicKeys"]] == keys
        assert compute["vmId"] == SAMPLE_VM.vm_id

    run(guest)


def test_a_changed_vm_is_told_as_it_is() -> None:
    vm = replace(SAMPLE_VM, hostname="a&b", name="web_000001", incarnation=7)

    async def guest(platform: Emulator, session: aiohttp.ClientSession) -> None:
        _, body = await fetch(session, platform.imds_url + INSTANCE, Metadata="true")
        assert json.loads(body)["compute"]["osProfile"]["computerName"] == "a&b"
        _, body = await fetch(session, f"{platform.wireserver_url}/machine?comp=goalstate", **WIRE_HEADERS)
        assert ElementTree.fromstring(body).findtext("Incarnation") == "7"

    run(guest, Emulator(vm))


def test_the_sample_platform_is_on_loopback_for_the_sample_vm() -> None:
    async def main() -> str:
        async with emulated_platform() as platform:
            assert platform.vm_id == SAMPLE_VM.vm_id
            assert platform.imds_url.startswith("http://127.0.0.1:")
            assert platform.wireserver_url.startswith("http://127.0.0.1:")
            return platform.media

    assert not Path(asyncio.run(main(), debug=True)).exists(), "the image is removed with the platform"


def test_the_sample_media_carries_the_sample_vm() -> None:
    with sample_media() as image:
        data = image.read_bytes()
    for name, content in media_files(SAMPLE_VM).items():
        assert content in data, name


def test_the_sample_media_is_pure_udf() -> None:
    packed = Path(__file__).parents[2] / "minprov/emulator/data/sample-media.img.gz"
    image = gzip.decompress(packed.read_bytes())
    identifiers = [image[sector * 2048 + 1 : sector * 2048 + 6] for sector in range(16, 19)]
    assert identifiers == [b"BEA01", b"NSR02", b"TEA01"]
    assert b"CD001" not in image
