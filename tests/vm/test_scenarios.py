"""First boots on which the platform gives less, comes late, or refuses; and one that cannot succeed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.findings import LAST_WORD, STATE, Findings, examine
from tests.vm.lab import HOSTNAME, USERNAME, boot, new_disk
from tests.vm.recipes import MEDIA_ON_DISK, NETWORKD, READ_ONLY_ETC

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tests.vm.machine import Disk

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

KVP_POOL = "/var/lib/hyperv/.kvp_pool_1"


class Outcome(NamedTuple):
    """One first boot, and what the program itself wrote of it."""

    findings: Findings
    result: dict[str, Any]


def _result(disk: Disk) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(disk.read(f"{STATE}/report.json"))
    return result


# --- a key alone, no IMDS, and WireServer refuses until the fifth attempt ---------------------------------------------


async def _key_alone() -> Outcome:
    vm = {"password": None, "disable-password-authentication": True}
    faults = """
        [imds]
        ignore = true
        [[health]]
        status = 503
        times = 4
        [[provisioning-health]]
        status = 503
        times = "forever"
    """
    with new_disk(NETWORKD) as disk:
        async with boot(NETWORKD, name="key-alone", disk=disk, vm=vm, faults=faults) as guest:
            findings = await examine(guest)
            await guest.machine.power_off()
        return Outcome(findings, _result(disk))


KEY_ALONE = BootSequence("key alone, no IMDS, four refusals", _key_alone)


@pytest.fixture(scope="module", params=[KEY_ALONE], ids=lambda sequence: sequence.name)
def key_alone(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Outcome]]) -> Outcome:
    return outcomes[request.param].result()


def test_the_media_is_enough_without_imds(key_alone: Outcome) -> None:
    assert key_alone.findings.report["state"] == "Ready"
    assert key_alone.result["sources"]["imds"]["state"] != "found"


def test_ready_is_repeated_until_it_is_accepted(key_alone: Outcome) -> None:
    assert key_alone.findings.requests.count("health") == 5
    assert key_alone.findings.requests.count("provisioning-health") > 0
    assert key_alone.result["health"]["channel"] == "xml"


def test_without_a_password_sudo_asks_for_none(key_alone: Outcome) -> None:
    assert key_alone.findings.sudo.lines == ["0"]


def test_without_a_password_only_the_key_logs_in(key_alone: Outcome) -> None:
    assert key_alone.findings.key_login.lines == [USERNAME]
    assert key_alone.findings.password_login.status != 0
    assert key_alone.findings.sshd_password_login == "no"


# --- a password alone, media on a disk, and the link comes late -------------------------------------------------------


async def _password_alone() -> Outcome:
    vm: dict[str, object] = {"ssh-public-keys": []}
    with new_disk(MEDIA_ON_DISK) as disk:
        async with boot(MEDIA_ON_DISK, name="password-alone", disk=disk, vm=vm, drive=False, link=False) as guest:
            await guest.machine.console.expect("^minprov: waiting for .* left", within=200)
            await guest.machine.set_link(up=True)
            findings = await examine(guest)
            await guest.machine.power_off()
        return Outcome(findings, _result(disk))


PASSWORD_ALONE = BootSequence("password alone, media on a disk, link late", _password_alone)


@pytest.fixture(scope="module", params=[on_demand(PASSWORD_ALONE)], ids=lambda sequence: sequence.name)
def password_alone(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Outcome]]) -> Outcome:
    return outcomes[request.param].result()


def test_media_on_a_disk_is_found_where_the_unit_allows_it(password_alone: Outcome) -> None:
    assert password_alone.result["sources"]["media"]["detail"].startswith("/dev/vdb, ")


def test_a_late_link_delays_the_report_and_nothing_else(password_alone: Outcome) -> None:
    assert password_alone.findings.report["state"] == "Ready"


def test_a_password_alone_logs_in(password_alone: Outcome) -> None:
    assert password_alone.findings.password_login.lines == [USERNAME]
    assert password_alone.findings.key_login.status != 0
    assert password_alone.findings.sshd_password_login == "yes"


def test_a_client_that_waits_for_the_link_sends_the_hostname_with_its_first_request(password_alone: Outcome) -> None:
    assert set(password_alone.findings.dhcp_names) == {HOSTNAME}


# --- no media, and WireServer a minute late ---------------------------------------------------------------------------


async def _imds_alone() -> Outcome:
    vm = {"password": None, "custom-data": None, "disable-password-authentication": True}
    with new_disk(NETWORKD) as disk:
        faults = "[wireserver]\nignore = 60\nfrom-first-request = true\n"
        async with boot(NETWORKD, name="imds-alone", disk=disk, vm=vm, media=False, faults=faults) as guest:
            findings = await examine(guest)
            await guest.machine.power_off()
        return Outcome(findings, _result(disk))


IMDS_ALONE = BootSequence("no media, WireServer a minute late", _imds_alone)


@pytest.fixture(scope="module", params=[on_demand(IMDS_ALONE)], ids=lambda sequence: sequence.name)
def imds_alone(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Outcome]]) -> Outcome:
    return outcomes[request.param].result()


def test_imds_is_enough_without_media(imds_alone: Outcome) -> None:
    assert imds_alone.findings.report["state"] == "Ready"
    assert imds_alone.result["sources"]["media"]["state"] == "missing"
    assert imds_alone.result["properties"]["hostname"] == {"value": HOSTNAME, "from": "imds"}
    assert imds_alone.findings.key_login.lines == [USERNAME]
    assert imds_alone.findings.sudo.lines == ["0"]


def test_a_late_wireserver_is_waited_for(imds_alone: Outcome) -> None:
    waited = [timing for timing in imds_alone.result["timings"] if timing["end_ms"] > 60_000]
    assert waited
    assert imds_alone.findings.last_word.startswith("minprov: provisioned, Ready reported in ")


# --- a failure that no retry mends ------------------------------------------------------------------------------------


class Failure(NamedTuple):
    """A first boot that cannot succeed, as each channel tells it."""

    report: dict[str, Any]
    console_line: str
    service: dict[str, str]
    target: str
    result: dict[str, Any]
    kvp_records: dict[str, str]


async def _hopeless() -> Failure:
    with new_disk(READ_ONLY_ETC) as disk:
        async with boot(READ_ONLY_ETC, name="hopeless", disk=disk) as guest:
            report = await guest.platform.reported("Ready", "NotReady", within=500)
            console_line = (await guest.machine.console.expect(LAST_WORD, within=60))[0].rstrip("\r")
            await guest.ask("systemctl is-system-running --wait", within=240)
            service = await guest.ask("systemctl show minprov.service --property=Result,ExecMainStatus")
            target = await guest.ask("systemctl is-active minprov-ready.target")
            await guest.machine.power_off()
        return Failure(
            report=report,
            console_line=console_line,
            service=dict(line.split("=", 1) for line in service.output.split()),
            target=target.output.strip(),
            result=_result(disk),
            kvp_records=_kvp_records(disk.read(KVP_POOL)),
        )


def _kvp_records(pool: bytes) -> dict[str, str]:
    """Return the pool's records: 512 bytes of key and 2048 of value each, padded with zeros."""
    records = [pool[start : start + 2560] for start in range(0, len(pool), 2560)]
    return {record[:512].rstrip(b"\0").decode(): record[512:].rstrip(b"\0").decode() for record in records}


HOPELESS = BootSequence("read-only /etc", _hopeless)


@pytest.fixture(scope="module", params=[HOPELESS], ids=lambda sequence: sequence.name)
def failure(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Failure]]) -> Failure:
    return outcomes[request.param].result()


def test_a_failure_is_told_to_the_platform(failure: Failure) -> None:
    assert (failure.report["state"], failure.report["substatus"]) == ("NotReady", "ProvisioningFailed")
    assert "Read-only file system" in failure.report["description"]


def test_a_failure_is_told_to_the_host(failure: Failure) -> None:
    assert failure.kvp_records["PROVISIONING_REPORT"] == failure.report["description"]


def test_a_failure_is_told_on_the_serial_console(failure: Failure) -> None:
    assert failure.console_line == f"minprov: {failure.report['description']}"


def test_a_failure_is_in_the_report_file_and_the_exit_status(failure: Failure) -> None:
    assert failure.result["outcome"] == "failed"
    assert failure.service == {"Result": "exit-code", "ExecMainStatus": str(failure.result["error"]["exit_status"])}


def test_after_a_failure_the_target_is_not_reached(failure: Failure) -> None:
    assert failure.target == "inactive"
