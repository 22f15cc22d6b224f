"""``minprov follow-up``: what is told to the platform and asked of it once the VM is ready."""

from __future__ import annotations

import os

from minprov.actions import Policy
from minprov.commands.output import print_actions, print_switched_off
from minprov.commands.parser import Parser, build_duty_parser
from minprov.config import load, load_duty
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
        print_switched_off("role-properties and dns-check are", dry_run=dry_run)
        return os.EX_OK
    if os.geteuid() != 0:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="WireServer answers root alone")
    import asyncio  # where it is off, a boot does not wait for it

    from minprov.commands.logs import set_up_logging
    from minprov.duties.follow_up.duty import run as follow_up
    from minprov.machine.identity import read_identity

    core = load(flags.get("config"))
    set_up_logging("error" if dry_run else core.log_level)
    work = follow_up(options, core.wireserver_url, core.state_dir, read_identity().vm_id, dry_run=dry_run)
    document = asyncio.run(work)
    print_actions(document, as_json=flags.get("json", False))
    return os.EX_OK


def build_parser() -> Parser:
    """Return the command's parser."""
    return build_duty_parser(
        "follow-up",
        "Tell the platform a host key's fingerprint, and ask its DNS for the hostname, as the configuration says.",
        dry_run="show it; tell nobody, but ask",
    )
