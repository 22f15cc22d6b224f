"""What is told and asked after Ready: the emulated WireServer takes it, and dnsmasq answers."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minprov.actions import Policy
from minprov.commands import follow_up as command
from minprov.duties.follow_up import dns_check, duty, role_properties
from minprov.duties.follow_up.dns_messages import Answer, build_query, parse_answer
from minprov.duties.follow_up.settings import Options
from minprov.emulator.faults import Faults, Step
from minprov.emulator.platform import Emulator
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System

TOLD = Options(role_properties=Policy.BEST_EFFORT)
ASKED = Options(dns_check=Policy.BEST_EFFORT)
NUMBER = 0x1234

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the record is root's")


# -- the fingerprint ---------------------------------------------------------------------------------------------------


def tell(state: Path, *vm_ids: str, faults: Faults | None = None, dry_run: bool = False) -> tuple[list[str], list[str]]:
    """Run it for each VM, and return the states and what the platform was sent."""

    async def main() -> tuple[list[str], list[str]]:
        async with Emulator(faults=faults or Faults()) as platform:
            states = []
            for vm_id in vm_ids:
                document = await duty.run(TOLD, platform.wireserver_url, str(state), vm_id, dry_run=dry_run)
                states += [action["state"] for action in document["actions"]]
            sent = [exchange for exchange in platform.requests if exchange.endpoint == "role-properties"]
            return states, [exchange.request.body.decode() for exchange in sent]

    return asyncio.run(main())


@pytest.fixture
def fingerprint(monkeypatch: pytest.MonkeyPatch) -> str:
    keys = ("ssh-ed25519 SHA256:ed+/", "ssh-rsa SHA256:rsa+/")
    monkeypatch.setattr(role_properties, "read_fingerprints", lambda _: keys)
    return "SHA256rsa+/"


@needs_root
def test_a_fingerprint_is_told_once(tmp_path: Path, fingerprint: str) -> None:
    states, sent = tell(tmp_path, "a", "a", "b")
    assert states == ["changed", "unchanged", "changed"]
    assert len(sent) == 2
    assert f'<Property name="CertificateThumbprint" value="{fingerprint}" />' in sent[0]
    assert json.loads((tmp_path / "follow-up.json").read_text())["told"] == {"vm_id": "b", "value": fingerprint}


@needs_root
@pytest.mark.usefixtures("fingerprint")
@pytest.mark.parametrize("status", [404, 500])
def test_a_refusal_is_noted_and_told_again_at_the_next_boot(tmp_path: Path, status: int) -> None:
    states, sent = tell(tmp_path, "a", "a", faults=Faults(steps={"role-properties": (Step(status=status),)}))
    assert states == ["failed", "changed"]
    assert len(sent) == 2


@needs_root
@pytest.mark.usefixtures("fingerprint")
def test_a_server_that_does_not_answer_takes_no_more_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_properties, "ROLE_PROPERTIES_LIMIT", 0.5)
    began = time.monotonic()
    stalled = Faults(steps={"role-properties": (Step(times=math.inf, drop="stall"),)})
    assert tell(tmp_path, "a", faults=stalled)[0] == ["failed"]
    assert time.monotonic() - began < 5
    record = json.loads((tmp_path / "follow-up.json").read_text())
    assert (record["error"], record["told"]) == (None, None)
    assert record["actions"][0]["error"]["reason"] == Reason.WIRESERVER_TIMEOUT.phrase


@pytest.mark.usefixtures("fingerprint")
def test_a_dry_run_tells_nobody(tmp_path: Path) -> None:
    assert tell(tmp_path, "a", dry_run=True) == (["planned"], [])
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_without_a_host_key_there_is_nothing_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role_properties, "read_fingerprints", lambda _: ())
    assert tell(tmp_path, "a") == (["unchanged"], [])


# -- the hostname ------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address: tuple[str, int] = free.getsockname()
    zone = ("--address=/web-01.internal.example/10.0.0.4", "--local=/internal.example/")
    flags = ("--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=127.0.0.1", "--pid-file=")
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", f"--port={address[1]}", *flags, *zone]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    yield address
    process.terminate()
    process.wait()


def test_a_name_that_the_server_knows_is_told(server: tuple[str, int]) -> None:
    shown = asyncio.run(dns_check.check("web-01", "internal.example", server))
    assert shown == "web-01.internal.example is 10.0.0.4"


@pytest.mark.parametrize(
    ("hostname", "domain", "detail"),
    [
        ("web-02", "internal.example", "no such name"),
        ("web-01", None, "no domain: the lease has given none"),
        ("a" * 64, "internal.example", "this is no name of DNS"),
    ],
)
def test_a_name_that_it_does_not_know_is_told_too(
    server: tuple[str, int], hostname: str, domain: str | None, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_check, "DNS_LIMIT", 2.0)
    with pytest.raises(ProvisioningError) as caught:
        asyncio.run(dns_check.check(hostname, domain, server))
    assert (caught.value.reason, caught.value.data["detail"]) == (Reason.HOSTNAME_UNKNOWN, detail)


@needs_root
def test_nobody_answers_and_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        monkeypatch.setattr(dns_check, "DNS_LIMIT", 0.5)
        monkeypatch.setattr(dns_check.check, "__defaults__", (silent.getsockname(),))
        monkeypatch.setattr(dns_check, "find_domain", lambda _: "internal.example")
        document = asyncio.run(duty.run(ASKED, "http://127.0.0.1:9", str(tmp_path), "a", dry_run=False))
    (action,) = document["actions"]
    assert (action["state"], action["error"]["data"]["detail"]) == ("failed", "no answer")
    assert document["error"] is None


@pytest.mark.parametrize(
    ("files", "domain"),
    [
        (
            {"/etc/resolv.conf": "nameserver 168.63.129.16\nsearch a.internal.cloudapp.net b\n"},
            "a.internal.cloudapp.net",
        ),
        (
            {"/etc/resolv.conf": "search .\n", "/run/systemd/resolve/resolv.conf": "search real.example\n"},
            "real.example",
        ),
        ({"/etc/resolv.conf": "domain one.\nsearch two\n"}, "two"),
        ({"/etc/resolv.conf": "search\n"}, None),
        ({}, None),
    ],
)
def test_the_domain_is_the_leases(files: dict[str, str], domain: str | None, tmp_path: Path) -> None:
    for path, text in files.items():
        (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path[1:]).write_text(text)
    assert dns_check.find_domain(System(str(tmp_path))) == domain


def test_an_answer_that_is_cut_or_damaged_is_none() -> None:
    question = build_query("web-01.example", NUMBER) or b""
    header = bytes.fromhex("1234 8180 0001 0001 0000 0000")
    answer = header + question[12:] + bytes.fromhex("c00c 0001 0001 0000003c 0004 0a000004")
    assert parse_answer(answer, NUMBER) == Answer(0, ("10.0.0.4",))
    assert parse_answer(question, NUMBER) is None
    assert parse_answer(answer, NUMBER + 1) is None
    assert [parse_answer(answer[:length], NUMBER) for length in range(len(answer))] == [None] * len(answer)
    for at in range(len(answer)):
        for value in (0, 0x3F, 0xC0, 0xFF):
            parse_answer(answer[:at] + bytes([value]) + answer[at + 1 :], NUMBER)


def test_off_it_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "m.toml"
    config.touch()
    assert command.run(["--config", str(config), "--dry-run"]) == os.EX_OK
    assert capsys.readouterr().out == "role-properties and dns-check are switched off\n"


@needs_root
def test_the_command_shows_what_it_would_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "m.toml"
    config.write_text(f'state-dir = "{tmp_path}/none"\n[role-properties]\npolicy = "best-effort"\n')
    assert command.run(["--config", str(config), "--dry-run", "--json"]) == os.EX_OK
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["schema"] == "minprov/follow-up/1"
