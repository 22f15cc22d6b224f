"""Command line of the emulated platform: options in, a running `Emulator`, its record out, an exit status.

Machine-readable output goes to stdout: `listening` first, so that a script that has read the line can start its guest,
then every accepted health report, and `end` at the end. The log has the requests as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason

from . import host_plugin, record
from .faults import NO_FAULTS, load_faults
from .media import write_media
from .options import Parser, add_vm_options, virtual_machine
from .platform import LOOPBACK, Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .platform import Exchange

REAL_IMDS = ("169.254.169.254", 80)
REAL_WIRESERVER = ("168.63.129.16", 80)
REAL_HOST_PLUGIN = ("168.63.129.16", host_plugin.PORT)

# A guest that gave up; sysexits has no word for it. DESIGN's statuses begin at 64.
EXIT_NOT_READY = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Until:
    """What ends the emulator besides a signal."""

    states: frozenset[str]
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the emulated platform; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["boot"]:
        from .guest import cli

        return cli.main(arguments[1:])
    options = _parse(arguments)
    try:
        vm = virtual_machine(options)
        faults = NO_FAULTS if options.faults is None else load_faults(options.faults)
        if options.write_media is not None:
            write_media(options.write_media, vm)
        with _open_log(options.log) as log:
            reporter = _Reporter(log=log, until=_until(options.until))
            platform = Emulator(
                vm,
                faults=faults,
                imds_address=REAL_IMDS if options.real_addresses else options.imds,
                wireserver_address=REAL_WIRESERVER if options.real_addresses else options.wireserver,
                host_plugin_address=REAL_HOST_PLUGIN if options.real_addresses else options.host_plugin,
                on_request=reporter.on_request,
            )
            return asyncio.run(reporter.run(platform, media=options.write_media))
    except ProvisioningError as error:
        print(f"minprov.emulator: {error}", file=sys.stderr)  # noqa: T201  # the program's own voice
        return error.reason.exit_status


class _Reporter:
    """Writes the record while the platform runs, and notices what it is to end at."""

    def __init__(self, *, log: IO[str] | None, until: _Until) -> None:
        self._log = log
        self._until = until
        self._ended = asyncio.Event()
        self._status = os.EX_OK

    async def run(self, platform: Emulator, *, media: str | None) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ended.set)
        async with platform:
            self._say(record.listening(platform, media))
            try:
                async with asyncio.timeout(None if math.isinf(self._until.seconds) else self._until.seconds):
                    await self._ended.wait()
            except TimeoutError:
                if self._until.states:
                    self._status = os.EX_TEMPFAIL
        self._say(record.end(platform))
        return self._status

    def on_request(self, exchange: Exchange) -> None:
        _write(self._log, record.request(exchange))
        report = record.health(exchange)
        if report is None or exchange.reply.health is None:
            return
        self._say(report)
        state = exchange.reply.health.state
        if exchange.reply.health.substatus == "Provisioning":
            return  # not an end, only a sign of life
        if state.lower() in self._until.states:
            self._status = os.EX_OK if state == "Ready" else EXIT_NOT_READY
            self._ended.set()

    def _say(self, line: str) -> None:
        _write(sys.stdout, line)
        if self._log is not sys.stdout:
            _write(self._log, line)


def _write(stream: IO[str] | None, line: str) -> None:
    if stream is None:
        return
    try:
        stream.write(line + "\n")
        stream.flush()
    except BrokenPipeError:  # nobody reads on, and there is still a guest to be served
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _open_log(name: str | None) -> Iterator[IO[str] | None]:
    if name is None or name == "-":
        yield None if name is None else sys.stdout
        return
    try:
        log = Path(name).open("w", encoding="utf-8")  # noqa: SIM115  # the with statement is two lines below
    except OSError as error:
        raise ProvisioningError(Reason.WRITE_FAILED, path=name, detail=error.strerror) from error
    with log:
        yield log


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m minprov.emulator",
        description="Serve the Azure platform of one VM: WireServer, IMDS, HostGAPlugin and provisioning media. "
        "`python -m minprov.emulator boot IMAGE` boots a disk image on it and tells whether it provisions itself.",
        epilog="Fault scripts, VM files and the log are described in docs/emulator.md.",
    )
    machine = add_vm_options(parser)
    machine.add_argument("--write-media", metavar="PATH", help="write the VM's provisioning media to an image file")
    behaviour = parser.add_argument_group("behaviour")
    behaviour.add_argument("--faults", metavar="FILE", help="fault script (default: everything works)")
    behaviour.add_argument(
        "--until",
        metavar="WHAT",
        action="append",
        default=[],
        help="end at the first report of `ready` or `notready`, or after so many seconds; may repeat "
        "(default: run until SIGINT or SIGTERM)",
    )
    addresses = parser.add_argument_group("addresses")
    addresses.add_argument(
        "--real-addresses",
        action="store_true",
        help="168.63.129.16:80, 169.254.169.254:80 and port 32526, which this machine or namespace must have",
    )
    for name in ("imds", "wireserver", "host-plugin"):
        addresses.add_argument(
            f"--{name}",
            metavar="HOST:PORT",
            type=_address,
            default=LOOPBACK,
            help="where it listens; port 0 is a free one (default: 127.0.0.1:0)",
        )
    output = parser.add_argument_group("output")
    output.add_argument("--log", metavar="FILE", help="every request as a line of JSON; - is stdout (default: none)")
    return parser.parse_args(arguments)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!a} is not HOST:PORT")
    return host, int(port)


def _until(words: list[str]) -> _Until:
    states = frozenset(word for word in words if word in {"ready", "notready"})
    try:
        seconds = min((float(word) for word in words if word not in states), default=math.inf)
    except ValueError as error:
        raise ProvisioningError(Reason.USAGE, option="--until", detail="not ready, notready or seconds") from error
    return _Until(states=states, seconds=seconds)
