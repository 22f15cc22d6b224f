"""``minprov follow-up``: what is told to the platform and asked of it once the VM is ready."""

from __future__ import annotations

import json
import os
import sys

from minprov.actions import Policy
from minprov.commands.parser import Parser
from minprov.config import CONFIG_FILE, load, load_duty
from minprov.errors import ProvisioningError, Reason


def run(argv: list[str]) -> int:
    """Do what the configuration asks for, or show it, and return the exit status.

    Raises:
        ProvisioningError: USAGE, CONFIG_INVALID, NOT_PERMITTED, WRITE_FAILED.

    """
    flags = vars(build_parser().parse_args(argv))
    dry_run = flags.get("dry_run", False)
    options = load_duty("follow_up", flags.get("config"))
    if Policy.OFF is options.role_properties is options.dns_check:
        if sys.stdout.isatty() or dry_run:
            sys.stdout.write("role-properties and dns-check are switched off\n")
        return os.EX_OK
    if os.geteuid() != 0:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="WireServer answers root alone")
    import asyncio  # where it is off, a boot does not wait for it

    from minprov.commands.logs import set_up_logging
    from minprov.duties.follow_up.duty import run as follow_up
    from minprov.machine.identity import read_identity
    from minprov.outcome.text import render_actions

    core = load(flags.get("config"))
    set_up_logging("error" if dry_run else core.log_level)
    work = follow_up(options, core.wireserver_url, core.state_dir, read_identity().vm_id, dry_run=dry_run)
    document = asyncio.run(work)
    text = json.dumps(document, indent=2) if flags.get("json") else render_actions(document["actions"])
    sys.stdout.write(f"{text}\n")
    return os.EX_OK


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        prog="minprov follow-up",
        description="Tell the platform a host key's fingerprint, and ask its DNS for the hostname, "
        "as the configuration says.",
    )
    parser.add_argument("--dry-run", action="store_true", help="show it; tell nobody, but ask (default: no)")
    parser.add_argument("--config", metavar="FILE", help=f"and FILE.d/*.toml (default: {CONFIG_FILE}, if there)")
    parser.add_argument("--json", action="store_true", help="print one JSON document (default: text)")
    return parser
