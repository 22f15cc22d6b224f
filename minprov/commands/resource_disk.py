"""``minprov resource-disk``: the temporary disk, its swap, and the time-outs of disks, at every boot."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from minprov.actions import Policy
from minprov.commands.parser import Parser
from minprov.config import CONFIG_FILE, load, load_duty
from minprov.errors import ProvisioningError, Reason


def run(argv: list[str]) -> int:
    """Do what the configuration asks for, or show it, and return the exit status.

    Raises:
        ProvisioningError: USAGE, CONFIG_INVALID, NOT_PERMITTED, RESOURCE_DISK_IN_USE by another run.

    """
    flags = vars(build_parser().parse_args(argv))
    dry_run = flags.get("dry_run", False)
    options = load_duty("resource_disk", flags.get("config"))
    if Policy.OFF is options.resource_disk is options.swap is options.timeouts:
        if sys.stdout.isatty() or dry_run:
            sys.stdout.write("resource-disk, swap and disk-timeouts are switched off\n")
        return os.EX_OK
    if os.geteuid() != 0:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="disks are for root to look at")
    import asyncio  # where it is off, a boot does not wait for it

    from minprov.commands.logs import set_up_logging

    core = load(flags.get("config"))
    set_up_logging("error" if dry_run else core.log_level)
    document = asyncio.run(_run(options, core.state_dir, dry_run=dry_run))
    if flags.get("json"):
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        from minprov.outcome.text import render_actions

        sys.stdout.write(render_actions(document["actions"]) + "\n")
    return document["error"]["exit_status"] if document["error"] else os.EX_OK


async def _run(options: Any, state_dir: str, *, dry_run: bool) -> dict[str, Any]:  # noqa: ANN401  # the duty's own
    from minprov.duties.resource_disk.disk import Here
    from minprov.duties.resource_disk.duty import run, store, to_document
    from minprov.machine.identity import read_identity

    identity = read_identity()
    here = Here(state_dir, identity.vm_id, identity.on_azure)
    document = to_document(await run(options, here, dry_run=dry_run))
    if not dry_run:
        await store(document, here)
    return document


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        prog="minprov resource-disk",
        description="Format the temporary disk if it is empty, mount it, swap on it, and set the time-outs of disks, "
        "as the configuration says.",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would change; change nothing (default: no)")
    parser.add_argument("--config", metavar="FILE", help=f"and FILE.d/*.toml (default: {CONFIG_FILE}, if there)")
    parser.add_argument("--json", action="store_true", help="print one JSON document (default: text)")
    return parser
