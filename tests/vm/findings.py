"""What is found out about a guest, from outside and from inside, in one go: a boot costs most of a minute.

`examine` asks while the guest runs, `examine_disk` reads its disk when it is off. The tests judge what the two found.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from minprov.emulator.guest.transcript import UnheardError
from tests.vm.lab import HOSTNAME, PASSWORD, USERNAME

if TYPE_CHECKING:
    from minprov.emulator.guest.login import Answer
    from tests.vm.lab import Guest
    from tests.vm.machine import Disk

STATE = "/var/lib/minprov"
# A line that has come whole, behind whatever byte another program leaves on the console.
LAST_WORD = r"minprov: (?:provisioned|already-provisioned|result=).*(?=\n)"
"""What minprov writes on the serial console last of all, the disc ejected and the hostname published."""
LINK_EVENTS = "cat /run/link-events"


class Findings(NamedTuple):
    """A guest that runs, after minprov has ended."""

    report: dict[str, Any]
    requests: list[str]
    dhcp_names: list[str]
    key_login: Answer
    password_login: Answer
    sudo: Answer
    hostname: str
    sshd_password_login: str
    tray_open: bool
    last_word: str
    link_events: list[str]
    answers: dict[str, str]


class DiskFindings(NamedTuple):
    """The disk of a guest that is off."""

    result: dict[str, Any]
    custom_data: bytes
    authorized_keys: str
    ovf_env: str
    password_field: str
    password_is_on_disk: bool


async def examine(guest: Guest, *questions: str, user: str = USERNAME, hostname: str = HOSTNAME) -> Findings:
    """Wait until minprov has ended, log in, and ask; `answers` has what the guest's shell said to `questions`."""
    report = await guest.platform.reported("Ready", "NotReady", within=500)
    last_word = await guest.machine.console.expect(LAST_WORD, within=60)
    key_login = await guest.ssh_with_key("id -un", user=user)
    password_login = await guest.ssh_with_password("id -un", user=user)
    sudo = await guest.ssh_with_key("sudo -n id -u", user=user)
    sshd = await guest.ask(f"/usr/sbin/sshd -T -C user={user},host=x,addr=10.0.0.9 | grep ^passwordauthentication")
    with suppress(UnheardError):  # for a test to judge
        await guest.network.dhcp.expect(f"client provides name: {hostname}$", within=30)
    link_events = (await guest.ask(LINK_EVENTS)).output.splitlines()
    answers = {question: (await guest.ask(question, within=240)).output.strip() for question in questions}
    return Findings(
        report=report,
        requests=guest.platform.requests,
        dhcp_names=guest.network.dhcp_names,
        key_login=key_login,
        password_login=password_login,
        sudo=sudo,
        hostname=(await guest.ask("hostname")).output.strip(),
        sshd_password_login=sshd.output.split()[-1],
        tray_open=await guest.machine.tray_is_open(),
        last_word=last_word[0].rstrip("\r"),
        link_events=link_events,
        answers=answers,
    )


def examine_disk(disk: Disk, *, etc: str = "/etc") -> DiskFindings:
    """Read from the disk what must be there, and look everywhere for what must not."""
    shadow = dict(line.split(":")[:2] for line in disk.read(f"{etc}/shadow").decode().splitlines())
    return DiskFindings(
        result=json.loads(disk.read(f"{STATE}/report.json")),
        custom_data=disk.read(f"{STATE}/custom-data"),
        authorized_keys=disk.read(f"/home/{USERNAME}/.ssh/authorized_keys").decode(),
        ovf_env=disk.read(f"{STATE}/ovf-env.xml").decode(),
        password_field=shadow[USERNAME],
        password_is_on_disk=disk.contains(PASSWORD.encode()),
    )
