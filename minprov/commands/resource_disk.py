"""``minprov resource-disk``: the temporary disk, its swap, and the time-outs of disks, at every boot."""

from __future__ import annotations

import os
from typing import Any

from minprov.actions import Policy
from minprov.commands.output import print_actions, print_switched_off
from minprov.commands.parser import Parser, build_duty_parser
from minprov.config import load, load_duty
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
        print_switched_off("resource-disk, swap and disk-timeouts are", dry_run=dry_run)
        return os.EX_OK
    if os.geteuid() != 0:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="disks are for root to look at")
    import asyncio  # where it is off, a boot does not wait for it

    from minprov.commands.logs import set_up_logging

    core = load(flags.get("config"))
    set_up_logging("error" if dry_run else core.log_level)
    document = asyncio.run(_run(options, core.state_dir, dry_run=dry_run))
    print_actions(document, as_json=flags.get("json", False))
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
    return build_duty_parser(
        "resource-disk",
        "Format the temporary disk if it is empty, mount it, swap on it, and set the time-outs of disks, "
        "as the configuration says.",
        dry_run="show what would change; change nothing",
    )
