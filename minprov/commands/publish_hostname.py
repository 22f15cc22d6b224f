"""``minprov publish-hostname``: have the platform's DNS learn a hostname that was changed after provisioning."""

from __future__ import annotations

import asyncio
import os
import socket

from minprov.actions import PublishHostname
from minprov.commands.output import print_text
from minprov.commands.parser import Parser
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System
from minprov.properties.published_hostname import converge, names_of_running_clients


def run(argv: list[str]) -> int:
    """Have each DHCP client that runs send the hostname anew, and return the exit status.

    Raises:
        ProvisioningError: USAGE, NOT_PERMITTED, READ_BACK without a link to the platform, TOOL_FAILED.

    """
    flags = vars(build_parser().parse_args(argv))
    if os.geteuid() != 0:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="DHCP clients are root's")
    hostname, system = socket.gethostname(), System()
    clients = names_of_running_clients(system)
    if not clients:
        print_text(["no DHCP client runs that can be asked: the next boot sends the name"])
        return os.EX_OK
    if flags.get("dry_run"):
        print_text([f"{clients} would send {hostname}"])
        return os.EX_OK
    asyncio.run(converge(system, PublishHostname(hostname)))
    print_text([f"{clients} asked to send {hostname}"])
    return os.EX_OK


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        prog="minprov publish-hostname",
        description="Have the DHCP client send the present hostname, from which the platform's DNS learns it.",
    )
    parser.add_argument("--dry-run", action="store_true", help="say who would send it; change nothing (default: no)")
    return parser
