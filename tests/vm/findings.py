"""What is found out about a provisioned guest, from outside and from inside, in one go: a boot costs most of a minute.

`examine` asks while the guest runs, `autopsy` reads its disk when it is off. The tests judge what the two bring home.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.vm.lab import PASSWORD, USERNAME

if TYPE_CHECKING:
    from tests.vm.lab import Guest
    from tests.vm.machine import Answer, Disk

STATE = "/var/lib/minprov"


class Findings(NamedTuple):
    """A guest that runs, after minprov reported."""

    report: dict[str, Any]
    requests: list[str]
    dhcp_names: list[str]
    key_login: Answer
    password_login: Answer
    sudo: Answer
    hostname: str
    sshd_password_login: str
    tray_open: bool
    console: str
    answers: dict[str, str]


class Remains(NamedTuple):
    """The disk of a guest that is off."""

    result: dict[str, Any]
    custom_data: bytes
    authorized_keys: str
    ovf_env: str
    password_field: str
    password_is_on_disk: bool


async def examine(guest: Guest, *questions: str, within: float = 400) -> Findings:
    """Wait until minprov has reported, log in, and ask; `answers` has what the guest's shell said to `questions`."""
    report = await guest.platform.reported("Ready", "NotReady", within=within)
    key_login = await guest.ssh_with_key("id -un")
    password_login = await guest.ssh_with_password("id -un")
    sudo = await guest.ssh_with_key("sudo -n id -u")
    sshd = await guest.ask(f"sshd -T -C user={USERNAME},host=x,addr=10.0.0.9 | grep ^passwordauthentication")
    hostname = await guest.ask("hostname")
    answers = {question: (await guest.ask(question, within=120)).output.strip() for question in questions}
    return Findings(
        report=report,
        requests=guest.platform.requests,
        dhcp_names=guest.network.dhcp_names,
        key_login=key_login,
        password_login=password_login,
        sudo=sudo,
        hostname=hostname.output.strip(),
        sshd_password_login=sshd.output.split()[-1],
        tray_open=await guest.machine.tray_is_open(),
        console=guest.machine.console.text,
        answers=answers,
    )


def autopsy(disk: Disk) -> Remains:
    """Read from the disk what must be there, and look everywhere for what must not."""
    shadow = dict(line.split(":")[:2] for line in disk.read("/etc/shadow").decode().splitlines())
    return Remains(
        result=json.loads(disk.read(f"{STATE}/report.json")),
        custom_data=disk.read(f"{STATE}/custom-data"),
        authorized_keys=disk.read(f"/home/{USERNAME}/.ssh/authorized_keys").decode(),
        ovf_env=disk.read(f"{STATE}/ovf-env.xml").decode(),
        password_field=shadow[USERNAME],
        password_is_on_disk=disk.contains(PASSWORD.encode()),
    )
