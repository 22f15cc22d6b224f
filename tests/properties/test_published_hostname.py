"""Which DHCP clients have to be told the hostname, and on which link. That they then send it, the VM tests show."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from minprov.actions import PublishHostname
from minprov.commands import publish_hostname
from minprov.machine.system import System
from minprov.properties import published_hostname
from minprov.properties.published_hostname import (
    dhcpcd_request,
    find_link_to_platform,
    inspect,
    note_running_clients,
    request_by,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("_children_alone")
HEADING = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
DEFAULT_ROUTE = "eth0 00000000 0100000A 0003 0 0 100 00000000 0 0 0\n"
WIRESERVER_ROUTE = "eth1 10813FA8 0100000A 0007 0 0 100 FFFFFFFF 0 0 0\n"


@contextmanager
def running(directory: Path, name: str) -> Iterator[None]:
    """Run a process that the kernel knows by this name."""
    program = shutil.copy("/bin/sleep", directory / name)
    with subprocess.Popen([program, "60"]) as process:
        try:
            while (Path("/proc") / str(process.pid) / "comm").read_text().strip() != name[:15]:
                pass  # exec has begun, and ends in a moment
            yield
        finally:
            process.kill()


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "unpublished-hostname"
    monkeypatch.setattr(published_hostname, "NOTE", str(path))
    return path


@pytest.mark.root  # the note is root's
@pytest.mark.parametrize("name", ["systemd-networkd", "NetworkManager", "dhclient", "dhcpcd", "wickedd"])
def test_a_client_that_runs_when_the_hostname_is_set_has_to_be_told(
    tmp_path: Path, note: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_hostname, "NETWORKD_USER", "root")  # not every machine has the user that it runs as
    with running(tmp_path, name):
        asyncio.run(note_running_clients(System()))
    assert note.read_text() == f"{name}\n"
    found = asyncio.run(inspect(System(), PublishHostname(socket.gethostname())))
    assert (found.holds, found.present) == (False, f"{name} started with another name")


@pytest.mark.root
def test_networkd_that_runs_as_another_user_than_its_own_is_none(tmp_path: Path, note: Path) -> None:
    with running(tmp_path, "systemd-networkd"):
        asyncio.run(note_running_clients(System()))
    assert not note.exists()


def test_a_client_that_starts_later_sends_it_by_itself(tmp_path: Path, note: Path) -> None:
    asyncio.run(note_running_clients(System()))
    assert not note.exists()
    with running(tmp_path, "dhclient"):
        assert asyncio.run(inspect(System(), PublishHostname(socket.gethostname()))).holds


@pytest.mark.root  # a client is root's
def test_a_dry_run_tells_of_the_clients_that_run(tmp_path: Path, note: Path) -> None:
    action = PublishHostname("another-name")
    assert asyncio.run(inspect(System(), action)).holds
    with running(tmp_path, "dhclient"):
        found = asyncio.run(inspect(System(), action))
    assert (found.holds, found.present) == (False, "dhclient runs already")
    assert not note.exists()


def test_a_tree_has_no_clients(tmp_path: Path) -> None:
    with running(tmp_path, "dhclient"):
        assert asyncio.run(inspect(System(str(tmp_path)), PublishHostname("another-name"))).holds


@pytest.mark.parametrize(
    ("routes", "link"),
    [
        (HEADING + DEFAULT_ROUTE + WIRESERVER_ROUTE, "eth1"),
        (HEADING + DEFAULT_ROUTE, "eth0"),
        (HEADING, None),
    ],
    ids=["own-route", "default-route", "no-route"],
)
def test_the_link_is_the_one_that_leads_to_the_platform(tmp_path: Path, routes: str, link: str | None) -> None:
    table = tmp_path / "route"
    table.write_text(routes)
    assert find_link_to_platform(str(table)) == link


@pytest.mark.parametrize(
    ("client", "command"),
    [
        ("systemd-networkd", "networkctl reconfigure eth0"),
        ("NetworkManager", "nmcli device modify eth0 ipv4.dhcp-hostname web-01"),
        ("wickedd", "wicked ifup eth0"),
    ],
)
def test_no_link_is_taken_down(client: str, command: str) -> None:
    assert request_by(client, "eth0", "web-01") == command.split()


@pytest.mark.parametrize(
    ("pid_file", "command"),
    [
        ("run/dhcpcd/pid", "dhcpcd --rebind"),
        ("run/dhcpcd.pid", "dhcpcd --rebind"),
        ("run/dhcpcd/eth0.pid", "dhcpcd --rebind eth0"),
    ],
)
def test_dhcpcd_is_signalled_and_not_asked_by_its_socket(tmp_path: Path, pid_file: str, command: str) -> None:
    (tmp_path / pid_file).parent.mkdir(parents=True)
    (tmp_path / pid_file).write_text("1\n")
    assert dhcpcd_request(System(str(tmp_path)), "eth0") == command.split()


def test_a_changed_name_is_sent_by_who_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("a client is root's")
    with running(tmp_path, "dhcpcd"):
        assert publish_hostname.run(["--dry-run"]) == os.EX_OK
    assert f"dhcpcd would send {socket.gethostname()}" in capsys.readouterr().out
    assert publish_hostname.run([]) == os.EX_OK
    assert "no DHCP client runs" in capsys.readouterr().out
