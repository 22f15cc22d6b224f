"""What the scenarios run in is what the unit says."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.sandbox import CAPABILITIES, UNIT, Sandbox, read_settings, system_calls

pytestmark = pytest.mark.root


def in_sandbox(function: Callable[[], object], unit: Path = UNIT) -> str:
    """Return what a call comes to in the unit's limits: its value, or the name of its error."""
    reader, writer = os.pipe()
    sandbox = Sandbox(unit)
    if (child := os.fork()) == 0:
        try:
            sandbox.enter_addresses()
            sandbox.enter()
            answer = str(function())
        except OSError as error:
            answer = errno.errorcode.get(error.errno or 0, str(error))
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return answer


def capabilities() -> set[str]:
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    assert int(status["NoNewPrivs"]) == 1
    bounds = int(status["CapBnd"], 16)
    return {name for number, name in enumerate(CAPABILITIES) if bounds >> number & 1}


def list_sudo() -> int:
    return subprocess.run(["sudo", "-l", "-U", "root"], capture_output=True, check=False).returncode


def connect(address: str) -> str:
    with socket.socket() as client:
        client.settimeout(0.2)
        try:
            client.connect((address, 9))
        except TimeoutError:
            return "no packet passes"
    return "connected"


def own_address() -> str | None:
    """Return an address of this machine by which it answers itself, and which the unit does not name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        try:
            client.connect(("203.0.113.9", 9))
        except OSError:
            return None
        return str(client.getsockname()[0])


def test_capabilities_are_those_of_the_unit() -> None:
    kept = {name.removeprefix("CAP_").lower() for name in read_settings(UNIT)["CapabilityBoundingSet"][0].split()}
    assert in_sandbox(lambda: sorted(capabilities())) == str(sorted(kept))


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), "EAFNOSUPPORT"),
        (lambda: os.nice(-1), "EPERM"),
        (lambda: os.chmod("/run", 0o4755), "EPERM"),
        (lambda: subprocess.run(["chroot", "/", "true"], capture_output=True, check=False).returncode, "125"),
    ],
    ids=["address family", "system call", "setuid bit", "capability"],
)
def test_what_the_unit_does_not_allow_is_refused(function: Callable[[], object], answer: str) -> None:
    assert in_sandbox(function) == answer


def test_no_packet_goes_elsewhere() -> None:
    own = own_address()
    if own is None or not Sandbox().limits_addresses:
        pytest.skip("no control groups, or no network")
    assert in_sandbox(lambda: connect(own)) == "no packet passes"
    assert in_sandbox(lambda: connect("127.0.0.1")) == "ECONNREFUSED"


def test_sudo_can_be_asked_with_the_capabilities_of_the_unit_and_not_with_less(tmp_path: Path) -> None:
    assert in_sandbox(list_sudo) == "0"
    narrower = tmp_path / "minprov.service"
    narrower.write_text(UNIT.read_text().replace("CAP_SETUID", ""))
    assert in_sandbox(list_sudo, narrower) == "1"


def test_groups_of_system_calls_are_those_of_systemd() -> None:
    calls = system_calls(["@system-service sethostname", "~@resources"])
    assert {"execve", "openat", "sethostname"} <= calls
    assert not {"ptrace", "setpriority", "@system-service"} & calls


def test_python_starts_in_the_sandbox() -> None:
    command = [sys.executable, "-c", "import aiohttp"]
    assert in_sandbox(lambda: subprocess.run(command, check=False).returncode) == "0"
