"""``minprov hooks``: the image's own programs for a moment of a run; a run starts it, on systems without systemd."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from minprov.commands.output import print_switched_off, print_text
from minprov.commands.parser import Parser, build_duty_parser
from minprov.config import BEFORE_READY, STAGES, load, load_duty
from minprov.errors import ProvisioningError, Reason

if TYPE_CHECKING:
    from minprov.config import Options
    from minprov.duties.hooks.settings import Options as Hooks

MAX_REPORT = 64 << 10


def run(argv: list[str]) -> int:
    """Run them, or show which would run, and return the exit status.

    Raises:
        ProvisioningError: USAGE, CONFIG_INVALID, NOT_PERMITTED, WRITE_FAILED; HOOK_FAILED and HOOK_REFUSED before
            Ready; TERMINATED.

    """
    flags = vars(build_parser().parse_args(argv))
    stage, dry_run = flags["stage"], flags.get("dry_run", False)
    options = load_duty("hooks", flags.get("config"))
    if not options.directory:
        print_switched_off("hooks are", dry_run=dry_run)
        return os.EX_OK
    from minprov.properties.hooks import refuse_beside_systemd

    refuse_beside_systemd()
    core = load(flags.get("config"))
    if dry_run:
        from minprov.duties.hooks.duty import preview
        from minprov.machine.identity import read_identity

        document = preview(options, stage, core.state_dir, read_identity().vm_id)
    elif os.geteuid() != 0:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="hooks are run as root")
    else:
        document = _run(options, core, stage)
    lines = [f"hook {name}  {state}" for name, state in document["hooks"].items()]
    print_text([json.dumps(document, indent=2)] if flags.get("json") else lines)
    return os.EX_OK


def _run(options: Hooks, core: Options, stage: str) -> dict[str, Any]:
    import asyncio  # where they are off, nobody waits for it

    from minprov.commands.logs import set_up_logging

    # Signals may be ignored or blocked by the run that starts this, and what it starts shall not inherit that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir("/")
    set_up_logging(core.log_level)
    try:
        return asyncio.run(_run_in_loop(options, core, stage))
    except asyncio.CancelledError as error:
        raise ProvisioningError(Reason.TERMINATED, waited_for="hooks") from error


async def _run_in_loop(options: Hooks, core: Options, stage: str) -> dict[str, Any]:
    import asyncio

    from minprov.duties.hooks.duty import end_with_parent
    from minprov.duties.hooks.duty import run as run_stage
    from minprov.machine.identity import read_identity
    from minprov.machine.markers import REPORT
    from minprov.machine.system import System
    from minprov.outcome.channels import write_console

    # The report of a run that has ended is in its file; of one that waits for this, it comes by standard input.
    ended = stage != BEFORE_READY
    report = (System().read(f"{core.state_dir}/{REPORT}") or b"") if ended else sys.stdin.buffer.read()
    report = report[:MAX_REPORT]
    vm_id = _vm_id_in(report) or read_identity().vm_id
    work = asyncio.create_task(run_stage(options, stage, core.state_dir, vm_id, report))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    watch = None if ended else asyncio.create_task(end_with_parent(work))
    document = await work
    for note in document["notes"] if ended else ():  # a run that waits tells of them itself
        await write_console(core, note)
    if watch:
        watch.cancel()
    return document


def _vm_id_in(report: bytes) -> str | None:
    try:
        document = json.loads(report)
    except ValueError:
        return None
    return document.get("vm_id") if isinstance(document, dict) else None


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = build_duty_parser(
        "hooks",
        "Run the image's own programs for a moment of a run, as the configuration says: each once for each VM, and "
        "those for a failure after each run that fails. A run starts it, on systems without systemd.",
        dry_run="show which would run",
    )
    parser.add_argument("stage", choices=STAGES, help="the moment: before-ready reads the report on standard input")
    return parser
