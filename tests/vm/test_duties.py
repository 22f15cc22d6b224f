"""Every duty that is off by default, switched on in one guest: what the kernel, systemd and PAM make of it.

What Azure alone has is stood in for: QEMU gives the ACPI table with Hyper-V's entropy, the emulator the certificates.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from minprov.emulator.guest.machine import firmware_uuid, quoted
from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.findings import LAST_WORD, STATE
from tests.vm.lab import ARTEFACTS, PASSWORD, USERNAME, VM_ID, boot, new_disk
from tests.vm.recipes import DUTIES, ROOT_PASSWORD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future

    from tests.vm.machine import Disk

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

OTHER_VM_ID = "0b1f4b6e-8d1c-4a35-9f5e-5f2f6f3f2a77"
# Each of the first three commands is one that the sandbox of minprov.service denies: it has /usr read-only, no
# CAP_NET_ADMIN, and no address to send to but the platform's.
BEFORE_READY = """\
#!/bin/bash -e
touch /usr/local/written
ip address add 192.0.2.1/32 dev lo
echo >/dev/udp/192.0.2.1/9
echo from customData
exec >>/var/lib/while-it-ran
systemctl is-active minprov.service minprov-ready.target || true
ls /var/lib/minprov/ready 2>&1 || true
echo "$MINPROV_VM_ID $MINPROV_USERNAME $(umask)"
sleep 300 &
"""
# It would wait for itself, if Ready waited for its end.
AFTER_READY = """\
#!/bin/sh
until systemctl is-active --quiet minprov-ready.target; do sleep 0.2; done
echo after Ready >>/var/lib/while-it-ran
exit 3
"""
ENTROPY = bytes(range(64))
TABLE = "/sys/firmware/acpi/tables/OEM0"
CERTIFICATES = f"{STATE}/certificates"

SETTLED = "systemctl is-system-running --wait"
FAILED = "systemctl list-units --failed --plain --no-legend | cut --delimiter=' ' --fields=1"
SEEN = "cat /var/lib/while-it-ran"
RECORD = f"cat {STATE}/custom-data.json"
JOURNAL = "journalctl --boot --unit=minprov-custom-data --output=cat"
LEFT_RUNNING = "pgrep --exact --count sleep"
TARGET = "systemctl is-active minprov-ready.target"
AFTER = "cat /var/lib/after-ready"
MODES = f"stat --format='%a %U %n' {CERTIFICATES} {CERTIFICATES}/*"
KEYS_ON_DISK = f"grep --recursive --files-with-matches 'PRIVATE KEY' {STATE} /run /tmp /var/tmp"
SOME_KEY = "ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | ssh-keygen -l -f - | cut --delimiter=' ' --fields=2"
# PAM's own judge of a password, without a session.
ROOT_LOGIN = f"printf '%s\\0' {ROOT_PASSWORD} | /usr/sbin/unix_chkpwd root nonull; echo $?"
USER_LOGIN = f"printf '%s\\0' {PASSWORD} | /usr/sbin/unix_chkpwd {USERNAME} nonull; echo $?"
FROM_HOST = f"tail --bytes=+37 {TABLE} | sha256sum"
SEEDED = "systemctl show minprov-entropy.service --property=ActiveState,Result"
SEEDED_AT = "systemctl show minprov-entropy.service --property=ExecMainExitTimestampMonotonic --value"
STARTED_AT = "systemctl show minprov.service --property=ExecMainStartTimestampMonotonic --value"
QUESTIONS = (
    *(SETTLED, FAILED, SEEN, RECORD, JOURNAL, LEFT_RUNNING, TARGET, AFTER, MODES, KEYS_ON_DISK, SOME_KEY),
    *(ROOT_LOGIN, USER_LOGIN, FROM_HOST, SEEDED, SEEDED_AT, STARTED_AT),
)


class Look(NamedTuple):
    """One boot: what the guest answered, by question, and what is on its disk."""

    answers: dict[str, str]
    requests: list[str]
    console: str
    result: dict[str, Any]
    root_entry: str
    files: dict[str, bytes]
    """The certificates and their keys, by name."""

    def times(self, name: str) -> tuple[float, float]:
        """Return when a step of the run began and ended."""
        return next((t["start_ms"], t["end_ms"]) for t in self.result["timings"] if t["name"] == name)

    def detail(self, action: str) -> str:
        """Return what the result says of an action."""
        return next(str(a["detail"]) for a in self.result["actions"] if a["action"] == action)


async def _look(
    disk: Disk, name: str, *, vm: Mapping[str, str], devices: Sequence[str] = (), last: str = "true"
) -> Look:
    async with boot(DUTIES, name=f"duties-{name}", disk=disk, vm=vm, devices=devices) as guest:
        await guest.machine.shell_ready(within=300)
        answers = {question: (await guest.ask(question, within=300)).output.strip() for question in QUESTIONS}
        journal = await guest.ask("journalctl --boot --no-pager --output=short-monotonic", within=240)
        (ARTEFACTS / f"duties-{name}" / "journal.log").write_text(journal.output)
        await guest.ask(last)
        await guest.machine.power_off()
        console = guest.machine.console.text
        requests = guest.platform.requests
    names = [Path(line.split()[-1]).name for line in answers[MODES].splitlines()[1:]]
    return Look(
        answers=answers,
        requests=requests,
        console=console,
        result=json.loads(disk.read(f"{STATE}/report.json")),
        root_entry=_root_entry(disk),
        files={name: disk.read(f"{CERTIFICATES}/{name}") for name in names},
    )


def _root_entry(disk: Disk) -> str:
    return next(line for line in disk.read("/etc/shadow").decode().splitlines() if line.startswith("root:"))


async def _one_boot() -> tuple[str, Look]:
    with new_disk(DUTIES) as disk, tempfile.NamedTemporaryFile() as data:
        data.write(ENTROPY)
        data.flush()
        table = ("-acpitable", f"sig=OEM0,oem_table_id=MICROSFT,data={quoted(Path(data.name))}")
        return _root_entry(disk), await _look(disk, "first", vm={"custom-data": BEFORE_READY}, devices=table)


async def _later_boots() -> dict[str, Look]:
    """The same VM again, with another setting; then as another VM's disk."""
    after_ready = "sed --in-place s/before-ready/after-ready/ /etc/minprov/minprov.toml"
    with new_disk(DUTIES) as disk:
        return {
            "first": await _look(disk, "before-ready", vm={"custom-data": BEFORE_READY}, last=after_ready),
            "later": await _look(disk, "later", vm={"custom-data": AFTER_READY}),
            "other": await _look(disk, "other", vm={"vm-id": OTHER_VM_ID, "custom-data": AFTER_READY}),
        }


FIRST = BootSequence("every duty at once", _one_boot)
LATER = BootSequence("every duty, boot after boot", _later_boots)


@pytest.fixture(scope="module", params=[FIRST], ids=lambda sequence: sequence.name)
def first(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[tuple[str, Look]]]) -> Look:
    return outcomes[request.param].result()[1]


@pytest.fixture(scope="module", params=[FIRST], ids=lambda sequence: sequence.name)
def root_before(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[tuple[str, Look]]]) -> str:
    return outcomes[request.param].result()[0]


@pytest.fixture(scope="module", params=[on_demand(LATER)], ids=lambda sequence: sequence.name)
def boots(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[dict[str, Look]]]) -> dict[str, Look]:
    return outcomes[request.param].result()


# --- the first boot ---------------------------------------------------------------------------------------------------


def test_no_unit_fails(first: Look) -> None:
    assert (first.answers[SETTLED], first.answers[FAILED]) == ("running", "")


def test_custom_data_runs_outside_of_the_sandbox_and_ready_waits_for_it(first: Look) -> None:
    assert first.answers[SEEN].splitlines() == [
        "activating",
        "inactive",
        f"ls: cannot access '{STATE}/ready': No such file or directory",
        f"{VM_ID} {USERNAME} 0022",
    ]
    assert first.times("execute-custom-data")[1] <= first.times("WireServer POST")[0]


def test_what_custom_data_says_is_in_the_journal_and_on_the_console(first: Look) -> None:
    assert "from customData" in first.answers[JOURNAL].splitlines()
    assert "from customData" in first.console


def test_how_custom_data_ended_is_in_the_result_and_in_the_record(first: Look) -> None:
    assert re.fullmatch(r"exit status 0 after \d+\.\d s \(was: has not run\)", first.detail("execute-custom-data"))
    record = json.loads(first.answers[RECORD])
    assert (record["state"], record["error"]) == ("ended", None)
    assert record["duration"] > 0


def test_what_custom_data_leaves_running_is_left_alone(first: Look) -> None:
    assert first.answers[LEFT_RUNNING] == "1"


def test_a_unit_that_is_ordered_after_the_target_starts_after_ready(first: Look) -> None:
    assert first.answers[TARGET] == "active"
    assert first.answers[AFTER].splitlines() == [firmware_uuid(VM_ID)]


def test_certificates_come_with_their_keys_for_root_alone(first: Look) -> None:
    modes = [line.split()[:2] for line in first.answers[MODES].splitlines()]
    assert modes == [["700", "root"], ["600", "root"], ["600", "root"]]
    (certificate,) = (name for name in first.files if name.endswith(".crt"))
    der = ssl.PEM_cert_to_DER_cert(first.files[certificate].decode())
    assert certificate == f"{hashlib.sha1(der).hexdigest().upper()}.crt"
    with tempfile.TemporaryDirectory() as directory:
        for name, contents in first.files.items():
            Path(directory, name).write_bytes(contents)
        path = Path(directory, certificate)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, path.with_suffix(".prv"))
    assert first.times("run-certificates")[1] <= first.times("WireServer POST")[0], "they are required"


def test_the_transport_key_is_in_no_file(first: Look) -> None:
    (key,) = (name for name in first.files if name.endswith(".prv"))
    assert first.answers[KEYS_ON_DISK].splitlines() == [f"{CERTIFICATES}/{key}"]


def test_the_entropy_of_the_host_is_mixed_in_before_host_keys_are_made(first: Look) -> None:
    assert first.answers[FROM_HOST].split()[0] == hashlib.sha256(ENTROPY).hexdigest()
    assert first.answers[SEEDED] == "Result=success\nActiveState=active"
    assert 0 < int(first.answers[SEEDED_AT]) < int(first.answers[STARTED_AT])


def test_the_key_that_sshd_shows_is_on_the_console(first: Look) -> None:
    assert re.fullmatch("SHA256:[A-Za-z0-9+/]{43}", first.answers[SOME_KEY])
    assert f"minprov: host key ssh-ed25519 {first.answers[SOME_KEY]}" in first.console
    assert re.search(LAST_WORD, first.console.partition(first.answers[SOME_KEY])[2])


def test_roots_password_is_locked_when_the_administrator_has_sudo(first: Look, root_before: str) -> None:
    name, _, *aging = root_before.split(":")
    assert first.root_entry == ":".join((name, "*", *aging))
    assert (first.answers[USER_LOGIN], first.answers[ROOT_LOGIN]) == ("0", "7"), "7 is PAM_AUTH_ERR"
    assert first.times("lock-root-password")[0] >= max(
        first.times(step)[1] for step in ("set-password", "write-authorized-keys", "grant-sudo")
    )


# --- later boots ------------------------------------------------------------------------------------------------------


def test_the_target_is_reached_at_once_at_a_later_boot(boots: dict[str, Look]) -> None:
    assert boots["later"].answers[TARGET] == "active"
    assert boots["later"].answers[STARTED_AT] == "0"
    assert "health" not in boots["later"].requests
    assert boots["later"].answers[AFTER].splitlines() == [firmware_uuid(VM_ID)] * 2


def test_custom_data_never_runs_twice_for_one_vm(boots: dict[str, Look]) -> None:
    for question in (SEEN, RECORD):
        assert boots["later"].answers[question] == boots["first"].answers[question]
    assert boots["later"].answers[LEFT_RUNNING] == "0"


def test_another_vms_custom_data_runs_after_ready_and_its_failure_is_its_own(boots: dict[str, Look]) -> None:
    other = boots["other"]
    assert other.answers[SEEN].splitlines()[-1] == "after Ready"
    assert (other.result["outcome"], other.result["health"]["reported"]) == ("provisioned", "Ready")
    record = json.loads(other.answers[RECORD])
    assert (record["vm_id"], record["state"]) == (OTHER_VM_ID, "ended")
    assert record["error"]["data"]["exit_status"] == "3"
    assert other.answers[FAILED] == "minprov-custom-data.service"
    assert other.answers[TARGET] == "active"
