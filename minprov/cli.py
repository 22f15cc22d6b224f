"""The command line: which command it is, and what becomes of an error. Each command has a parser of its own."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason

if TYPE_CHECKING:
    from types import ModuleType

    from minprov.commands.parser import Parser
    from minprov.last_resort import LastResort, NoLastResort

COMMANDS = {
    "certificates": "fetch the certificates that the VM was created with",
    "check": "tell what would keep a machine or a tree from coming up on Azure",
    "custom-data": "run the program that customData is, when a run has made it due",
    "deprovision": "take from a machine what is its own, before an image is made of it",
    "follow-up": "tell the platform a host key's fingerprint, ask its DNS for the hostname",
    "hooks": "run the image's own programs for a moment of a run, on systems without systemd",
    "import-waagent-conf": "print a minprov.toml that does what a waagent.conf says",
    "publish-hostname": "have the DHCP client send the present hostname",
    "resource-disk": "format, mount and swap on the temporary disk; set the time-outs of disks",
    "status": "print the last run's result",
    "vhd": "make the fixed VHD that Azure takes from a disk image",
    "wait-in-pool": "wait as a pre-provisioned VM for its owner; a run that finds itself in a pool starts it",
}
"""What each command does; its module in `commands` is named like it. Without one, the machine is provisioned."""

INTERRUPTED = 130
"""The exit status by which a shell knows that SIGINT has ended a program."""


def run(argv: list[str], last_resort: LastResort | NoLastResort | None = None) -> int:
    """Run the command line and return the exit status; whatever is wrong is printed."""
    try:
        if argv and argv[0] in COMMANDS:
            return _run_command(argv[0], argv[1:])
        if argv[:1] in (["--help"], ["-h"]):
            build_parser().print_help()
            return os.EX_OK
        from minprov.commands.run import run

        return run(argv, last_resort)
    except ProvisioningError as error:
        if "--json" in argv:
            from minprov.commands.output import print_result
            from minprov.outcome.result import Result, to_document

            print_result(to_document(Result(error=error)), as_json=True)
        else:
            with suppress(OSError):  # there is no room
                sys.stderr.write(f"minprov: {error}\n{error.reason.action}\n")
        return error.reason.exit_status


def _run_command(name: str, argv: list[str]) -> int:
    try:
        status: int = _module(name).run(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def build_parser() -> Parser:
    """Return one parser of all commands, for the help, the man page and the completions."""
    from minprov.commands.run import build_parser

    parser = build_parser()
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, does in COMMANDS.items():
        try:
            own = _module(name).build_parser()
        except ProvisioningError:
            continue  # not part of this installation
        commands.add_parser(name, help=does, description=own.description, parents=[own], add_help=False)
    return parser


def _module(command: str) -> ModuleType:
    try:
        return import_module(f"minprov.commands.{command.replace('-', '_')}")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("minprov."):
            raise
        detail = f"`minprov {command}` is not part of this installation"
        from minprov.config import OWNERS  # only on the way out

        package = "minprov-duties" if command.replace("-", "_") in OWNERS.values() else "minprov-tools"
        raise ProvisioningError(Reason.USAGE, detail=detail, hint=f"install the package {package}") from error
