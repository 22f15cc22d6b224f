"""Boot a disk image against the emulated platform, and tell whether it provisions itself.

Everything that can be seen from outside is told as it happens: the DHCP lease, each request, each health report, the
first login. Without a report there is still the end of the serial console, and what was asked of the platform.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from minprov.emulator.media import write_media
from minprov.image.progress import StatusLine
from minprov.model import SshPublicKey
from minprov.outcome.chart import WAIT, WORK, Bar, Row
from minprov.outcome.page import Moment, Verdict, render_boot_page
from minprov.outcome.terminal import Colour, coloured

from .acceleration import is_accelerated
from .image import uefi_arguments
from .login import Login, make_key_pair
from .machine import firmware_uuid, running_machine
from .network import platform_network
from .outputs import build_junit, write_output
from .platform import start_platform
from .transcript import UnheardError
from .waiting import shown_wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from minprov.emulator.vm import VirtualMachine

    from .architecture import Architecture
    from .image import DiskImage
    from .login import KeyPair
    from .machine import Machine
    from .platform import Platform

# Ready means usable, so this is for the login itself, and for provisioners that make the account only after Ready.
LOGIN_LIMIT = 120.0
_TAIL = 30
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][0-9A-Z]|[^\x20-\x7e]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is tried: an image, as the VM that the platform believes in."""

    image: DiskImage
    architecture: Architecture
    vm: VirtualMachine
    faults: Path | None
    uefi: bool
    has_media: bool
    logins: tuple[str, ...]
    """`key`, `password`: the ways that must work once Ready is reported."""
    limit: float
    memory: int
    console: Path | None
    page: Path | None = None
    """Where to write what happened as a page to look at."""
    junit: Path | None = None


async def try_image(trial: Trial, say: Callable[[str], None]) -> bool:
    """Boot the image, say what happens line by line, and return whether it provisioned itself.

    Raises: ProvisioningError if it could not be tried.
    """
    line = StatusLine()

    def say_above(text: str) -> None:
        line.clear()
        say(text)

    events = _Events(say_above)
    firmware = "UEFI" if trial.uefi else "BIOS"
    processor = "KVM" if is_accelerated(trial.architecture) else "software emulation"
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minprov-boot-")))
        key = make_key_pair(directory) if "key" in trial.logins else None
        vm = _with_key(trial.vm, key) if key else trial.vm
        network = await stack.enter_async_context(platform_network(on_dhcp_line=events.on_dhcp_line))
        platform = await start_platform(
            network, vm, directory=directory, faults=trial.faults, on_line=events.on_platform_line
        )
        machine = await stack.enter_async_context(
            running_machine(
                network=network,
                directory=directory,
                boots=(*trial.image.arguments, *(uefi_arguments(directory, trial.architecture) if trial.uefi else ())),
                product_uuid=vm.vm_id if trial.uefi else firmware_uuid(vm.vm_id),
                mac=vm.mac_address,
                media=_write_media(vm, directory) if trial.has_media else None,
                console_log=trial.console,
                memory=trial.memory,
                architecture=trial.architecture,
            )
        )
        logins: dict[str, Login] = {}
        if key:
            logins["key"] = Login.with_key(network, vm.username, key)
        if "password" in trial.logins and vm.password:
            logins["password"] = Login.with_password(network, vm.username, vm.password.reveal(), directory)
        say(f"{trial.image.path.name} starts as {vm.hostname}: {trial.architecture.name}, {firmware}, {processor}")
        await machine.start()
        events.starts_at = machine.started_at

        def words() -> str:
            return next((said for _, text in reversed(machine.console.arrivals) if (said := _printable(text))), "")

        with shown_wait(line, "until a report", trial.limit, words):
            failure = await _report(platform, machine, trial.limit)
        for name, login in logins.items():
            with shown_wait(line, f"until a login by {name}", LOGIN_LIMIT, words):
                failure = failure or await _log_in(name, login, vm.username, events)
        provisioned = events.end(failure, machine)
        _write_reports(trial, events, failure, machine)
        return provisioned


def _write_reports(trial: Trial, events: _Events, failure: str | None, machine: Machine) -> None:
    name = trial.image.path.name
    if trial.page:
        sentence = f"{name} did not provision itself: {failure}" if failure else f"{name} provisions itself"
        console = ((at, line, True) for at, line in machine.console.arrivals)
        seen = ((at, line, False) for at, line in events.happened)
        moments = [
            Moment(at - events.starts_at, _printable(line), of_console)
            for at, line, of_console in (*console, *seen)
            if line.strip()
        ]
        verdict = Verdict(failure is None, sentence, events.summary)
        page = render_boot_page(f"minprov: {name}", verdict, moments, events.rows(time.monotonic()))
        write_output(trial.page, page.encode(errors="replace"))
    if trial.junit:
        write_output(trial.junit, build_junit(name, [("provisions itself", failure)]))


class _Events:
    """What happens, told with the time since the machine started."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.starts_at = math.inf
        self._lease: str | None = None
        self._asked: Counter[str] = Counter()
        self._ready_at: float | None = None
        self._usable_at: float | None = None
        self._first_request_at: float | None = None
        self.happened: list[tuple[float, str]] = []

    def tell(self, at: float, what: str, detail: str) -> None:
        self.happened.append((at, f"{what}  {detail}"))
        self._say(f"{at - self.starts_at:7.1f} s  {what:<8} {detail}")

    @property
    def summary(self) -> list[str]:
        """When it was Ready, and usable, in words."""
        moments = (("Ready", self._ready_at), ("usable by SSH", self._usable_at))
        return [f"{what} after {at - self.starts_at:.1f} s" for what, at in moments if at]

    def rows(self, end: float) -> list[Row]:
        """Return the stages of the boot, in seconds from its start."""
        stages = (
            ("until the first request", self.starts_at, self._first_request_at or end, WAIT),
            ("until Ready is reported", self._first_request_at, self._ready_at, WORK),
            ("until the first login", self._ready_at, self._usable_at, WAIT),
        )
        return [
            Row(name, [Bar(start - self.starts_at, stop - self.starts_at, kind)])
            for name, start, stop, kind in stages
            if start is not None and stop is not None
        ]

    def on_dhcp_line(self, at: float, line: str) -> None:
        if granted := re.search(r"DHCPACK\(\S+\) (\S+) \S+ ?(.*)", line):
            self._lease = f"{granted[1]} for {_printable(granted[2]) or 'a guest that does not say its name'}"
            self.tell(at, "DHCP", self._lease)

    def on_platform_line(self, at: float, line: str) -> None:
        event: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        match event:
            case {"event": "request", **request}:
                self._first_request_at = self._first_request_at or at
                asked = f"{request['method']} {request['path']}"
                self._asked[_printable(asked)] += 1
                query = urlencode(request["query"])
                answered = filter(None, (str(request["status"] or request["verdict"]), request["detail"]))
                self.tell(at, "request", _printable("  ".join((asked + "?" * bool(query) + query, *answered))))
            case {"event": "health", "state": state, "substatus": substatus, "description": description}:
                if state == "Ready":
                    self._ready_at = self._ready_at or at
                self.tell(at, "report", _printable(" ".join(filter(None, (state, substatus, description)))))

    def on_login(self, name: str, username: str) -> None:
        now = time.monotonic()
        self._usable_at = self._usable_at or now
        self.tell(now, "login", f"{username} by {name}")

    def end(self, failure: str | None, machine: Machine) -> bool:
        if failure is None:
            self._say(coloured(f"Provisioned: {', '.join(self.summary)}.", Colour.GOOD, sys.stdout))
            return True
        lines = [line for line in map(_printable, machine.console.text.splitlines()) if line.strip()]
        self._say(f"The serial console{' at the end' if lines else ' said nothing: is console=ttyS0 missing?'}")
        for line in lines[-_TAIL:]:
            self._say(f"  | {line}")
        asked = ", ".join(f"{what} ({times})" for what, times in self._asked.items())
        self._say(f"DHCP lease: {self._lease or 'never asked for'}")
        self._say(f"The platform was asked: {asked or 'nothing'}")
        self._say(coloured(f"Not provisioned: {failure}.", Colour.BAD, sys.stdout))
        return False


async def _report(platform: Platform, machine: Machine, limit: float) -> str | None:
    """Wait for the report; return what went wrong with it, or nothing."""
    ended = asyncio.create_task(machine.monitor.ended(within=None))
    reported = asyncio.create_task(platform.reported("Ready", "NotReady", within=limit))
    try:
        await asyncio.wait({ended, reported}, return_when=asyncio.FIRST_COMPLETED)
        if not reported.done():
            return "the machine switched itself off before it reported"
        report = await reported
    except UnheardError:
        return f"nothing was reported in {limit:.0f} s"
    finally:
        ended.cancel()
        reported.cancel()
    return None if report["state"] == "Ready" else "the guest reported that it failed"


async def _log_in(name: str, login: Login, username: str, events: _Events) -> str | None:
    """Log in as a person would, until it works; return what went wrong, or nothing."""
    answer = await login.succeed("true", within=LOGIN_LIMIT)
    if answer.status == 0:
        events.on_login(name, username)
        return None
    return f"Ready was reported, but {username} cannot log in by {name}: {_printable(' '.join(answer.lines))}"


def _with_key(vm: VirtualMachine, key: KeyPair) -> VirtualMachine:
    """Add the key that is made for this boot: nobody's private key is asked for."""
    path = f"/home/{vm.username}/.ssh/authorized_keys"
    return replace(vm, ssh_public_keys=(*vm.ssh_public_keys, SshPublicKey(value=key.public, path=path)))


def _write_media(vm: VirtualMachine, directory: Path) -> Path:
    media = directory / "media.img"
    write_media(media, vm)
    return media


def _printable(text: str) -> str:
    """Return text of the guest's without what a terminal would obey."""
    return _UNPRINTABLE.sub("", text)
