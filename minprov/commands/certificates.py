"""``minprov certificates``: the certificates that the VM was created with, and their keys, at every boot."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from minprov.actions import Policy
from minprov.commands.output import print_switched_off, print_text
from minprov.commands.parser import Parser, build_duty_parser
from minprov.config import load, load_duty
from minprov.errors import ProvisioningError, Reason


def run(argv: list[str]) -> int:
    """Fetch them, or show what would be written, and return the exit status.

    Raises:
        ProvisioningError: USAGE, CONFIG_INVALID, NOT_PERMITTED; as the duty does, where it is required.

    """
    flags = vars(build_parser().parse_args(argv))
    dry_run, public_keys = flags.get("dry_run", False), flags.get("public_keys", False)
    options = load_duty("certificates", flags.get("config"))
    if options.certificates is Policy.OFF and not public_keys:
        print_switched_off("certificates are", dry_run=dry_run)
        return os.EX_OK
    if os.geteuid() != 0:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="WireServer answers root alone, as do the keys")
    import asyncio  # where it is off, a boot does not wait for it

    from minprov.commands.logs import set_up_logging
    from minprov.duties.certificates.duty import fetch_public_keys
    from minprov.duties.certificates.duty import run as fetch
    from minprov.machine.identity import read_identity

    core = load(flags.get("config"))
    if public_keys:
        set_up_logging("error")
        print_text([json.dumps(asyncio.run(fetch_public_keys(core.wireserver_url)), indent=2)])
        return os.EX_OK
    if options.key_pairs and core.ovf_env is Policy.OFF:
        detail = "ovf-env.policy is off, and nothing else names them"
        raise ProvisioningError(Reason.CONFIG_INVALID, key="certificates.key-pairs", detail=detail)
    set_up_logging("error" if dry_run else core.log_level)
    work = fetch(options, core.wireserver_url, core.state_dir, read_identity().vm_id, dry_run=dry_run)
    try:
        document = asyncio.run(work)
    except ProvisioningError as error:
        if options.certificates is Policy.REQUIRED:
            raise
        sys.stderr.write(f"minprov: {error}\n{error.reason.action}\n")
        return os.EX_OK
    print_text([json.dumps(document, indent=2)] if flags.get("json") else _render(document))
    return os.EX_OK


def _render(document: dict[str, Any]) -> list[str]:
    lines = [f"{document['directory']}/{name}: {state}" for name, state in document["files"].items()]
    lines += [f"{path}: {state}" for path, state in document["key_pairs"].items()]
    return lines or ["the platform has no certificates for this VM"]


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = build_duty_parser(
        "certificates",
        "Fetch the certificates that the VM was created with, and their keys, as the configuration says.",
        dry_run="show what would be written",
    )
    parser.add_argument(
        "--public-keys",
        action="store_true",
        help="print the certificates' public keys, by thumbprint, as JSON, and write nothing (default: no)",
    )
    return parser
