"""``python -m minprov.emulator`` as a user runs it: another process, its output, its exit status."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import IO, TYPE_CHECKING, Any

import pytest

from minprov.discs.reader import read_media
from minprov.emulator.cli import main
from minprov.emulator.vm import SAMPLE_VM
from minprov.ovf import parse_ovf_env

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Line = dict[str, Any]
Headers = dict[str, str]
NO_HEADERS: Headers = {}
COMMAND = (sys.executable, "-m", "minprov.emulator")
READY = b'{"state":"Ready"}'
STARTING = b'{"state":"NotReady","details":{"subStatus":"Provisioning","description":"Starting"}}'
FAILED = b'{"state":"NotReady","details":{"subStatus":"ProvisioningFailed","description":"no disc"}}'


class Running:
    """An emulator that has said where it listens."""

    def __init__(self, process: subprocess.Popen[str], output: IO[str]) -> None:
        self.process = process
        self._output = output
        self.listening: Line = json.loads(output.readline())
        assert self.listening["event"] == "listening"

    def report(self, body: bytes) -> int:
        """Post a health report; return the status it was answered with."""
        return self.call("wireserver", "POST", "/provisioning/health", body, {"Content-Type": "application/json"})

    def call(
        self, server: str, method: str, path: str, body: bytes | None = None, headers: Headers = NO_HEADERS
    ) -> int:
        connection = HTTPConnection(self.listening[server].removeprefix("http://"), timeout=10)
        try:
            connection.request(method, path, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def close_output(self) -> None:
        """Go away, as `head -1` does when it has its line."""
        self._output.close()

    def end(self) -> tuple[int, list[Line]]:
        """Wait for the end; return the exit status and what was said since `listening`."""
        lines = [json.loads(line) for line in self._output]
        return self.process.wait(10), lines


@contextmanager
def emulator(*arguments: str, command: tuple[str, ...] = COMMAND) -> Iterator[Running]:
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Running(process, process.stdout)
        finally:
            process.kill()


def test_until_ready_ends_well_and_sums_up() -> None:
    with emulator("--until", "ready") as running:
        running.report(STARTING)
        running.report(READY)
        status, lines = running.end()
    assert status == os.EX_OK
    assert [line["event"] for line in lines] == ["health", "health", "end"]
    assert lines[-1]["state"] == "Ready"
    assert [report["substatus"] for report in lines[-1]["health"]] == ["Provisioning", None]


def test_until_notready_ends_at_a_failure_but_not_at_a_sign_of_life() -> None:
    with emulator("--until", "ready", "--until", "notready") as running:
        running.report(STARTING)
        running.report(FAILED)
        status, lines = running.end()
    assert status == 1
    assert lines[-1]["state"] == "NotReady"
    assert lines[-2]["description"] == "no disc"


def test_a_failure_that_was_not_asked_for_does_not_end_it() -> None:
    with emulator("--until", "ready") as running:
        running.report(FAILED)
        running.report(READY)
        assert running.end()[0] == os.EX_OK


@pytest.mark.parametrize(("until", "status"), [(["0"], os.EX_OK), (["0", "ready"], os.EX_TEMPFAIL)])
def test_time_may_end_it_and_says_so_if_a_report_was_awaited(until: list[str], status: int) -> None:
    with emulator(*(f"--until={word}" for word in until)) as running:
        assert running.end()[0] == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(number: int) -> None:
    with emulator() as running:
        running.process.send_signal(number)
        status, lines = running.end()
    assert status == os.EX_OK
    assert [line["event"] for line in lines] == ["end"]


def test_the_log_has_every_request_and_why_it_was_refused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with emulator("--until", "ready", "--log", str(log)) as running:
        assert running.call("imds", "GET", "/metadata/instance?api-version=2023-11-15") == 400
        assert running.report(READY) == 201
        _, said = running.end()
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in logged] == ["listening", "request", "request", "health", "end"]
    wrong, right = logged[1:3]
    assert (wrong["server"], wrong["endpoint"], wrong["method"], wrong["path"]) == (
        "imds",
        "instance",
        "GET",
        "/metadata/instance",
    )
    assert wrong["query"] == {"api-version": "2023-11-15"}
    assert (wrong["status"], wrong["verdict"]) == (400, "refused")
    assert "Metadata: true" in wrong["detail"]
    assert (right["status"], right["verdict"], right["body"]) == (201, "accepted", READY.decode())
    assert right["headers"]["content-type"] == "application/json"
    assert wrong["ms"] < right["ms"]
    assert logged[3:] == said


def test_a_report_that_utf_8_cannot_carry_is_logged_all_the_same() -> None:
    with emulator("--until", "notready", "--log", "-") as running:
        assert running.report(FAILED.replace(b"no disc", b"\\ud800")) == 201
        _, lines = running.end()
    assert lines[-1]["health"][0]["description"] == "\ud800"


def test_the_log_on_stdout_has_each_line_once() -> None:
    with emulator("--until", "ready", "--log", "-") as running:
        running.report(READY)
        _, lines = running.end()
    assert [line["event"] for line in lines] == ["request", "health", "end"]


def test_a_guest_is_served_though_nobody_reads_on() -> None:
    with emulator("--until", "ready", "--log", "-") as running:
        running.close_output()
        assert [running.report(STARTING), running.report(READY)] == [201, 201]
        assert running.process.wait(10) == os.EX_OK


def test_vm_faults_and_media_come_together(tmp_path: Path) -> None:
    (tmp_path / "vm.toml").write_text('hostname = "db-01"\npassword = "Other-Passw0rd"\n')
    (tmp_path / "faults.toml").write_text("[[provisioning-health]]\nstatus = 503\n")
    media = tmp_path / "media.iso"
    with emulator(
        f"--vm={tmp_path / 'vm.toml'}",
        f"--faults={tmp_path / 'faults.toml'}",
        f"--write-media={media}",
        "--set=username=operator",
        "--set=incarnation=9",
        "--until=ready",
    ) as running:
        assert running.listening["media"] == str(media)
        env = parse_ovf_env(read_media(str(media)).ovf_env)
        assert (env.hostname, env.username) == ("db-01", "operator")
        assert [running.report(READY), running.report(READY)] == [503, 201]
        status, lines = running.end()
    assert status == os.EX_OK
    assert lines[-1]["requests"] == {"accepted": 1, "refused": 0, "scripted": 1}


def test_without_options_it_is_the_sample_vm() -> None:
    with emulator("--until", "0") as running:
        assert running.listening["vm_id"] == SAMPLE_VM.vm_id
        assert running.listening["media"] is None


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--vm=missing.toml"], os.EX_CONFIG, "missing.toml"),
        (["--faults=missing.toml"], os.EX_CONFIG, "missing.toml"),
        (["--set=hostnames=x"], os.EX_CONFIG, "nearest=hostname"),
        (["--until=later"], os.EX_USAGE, "--until"),
        (["--imds=nowhere"], os.EX_USAGE, "HOST:PORT"),
        (["--imds=192.0.2.1:80"], os.EX_USAGE, "ip address add 192.0.2.1/32 dev lo"),
        (["--log=/nonexistent/log"], os.EX_IOERR, "/nonexistent/log"),
        (["--write-media=/nonexistent/media"], os.EX_IOERR, "/nonexistent/media"),
    ],
)
def test_a_wrong_option_is_an_error_before_anything_is_served(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    try:
        found = main(arguments)
    except SystemExit as end:  # argparse's way out
        assert isinstance(end.code, int)
        found = end.code
    output, error = capsys.readouterr()
    assert (found, output) == (status, "")
    assert said in error


@pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip of iproute2")
def test_real_addresses_need_only_a_namespace_that_has_them() -> None:
    addresses = (
        "ip link set lo up && ip address add 168.63.129.16/32 dev lo && ip address add 169.254.169.254/32 dev lo"
    )
    inside = f'{addresses} && exec "$@"'
    command = ("unshare", "--map-root-user", "--net", "sh", "-c", inside, "sh", *COMMAND)
    with emulator("--real-addresses", "--until=ready", command=command) as running:
        assert running.listening["imds"] == "http://169.254.169.254:80"
        assert running.listening["wireserver"] == "http://168.63.129.16:80"
        assert running.listening["host_plugin"] == "http://168.63.129.16:32526"
        guest = (
            "import urllib.request as r; r.urlopen(r.Request('http://168.63.129.16/provisioning/health',"
            f" data={READY!r}, headers={{'Content-Type': 'application/json'}}))"
        )
        enter = ("nsenter", "--user", "--net", "--preserve-credentials", "--target", str(running.process.pid))
        subprocess.run([*enter, sys.executable, "-c", guest], check=True, timeout=10)
        assert running.end()[0] == os.EX_OK
