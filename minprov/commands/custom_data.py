"""``minprov custom-data``: the program that customData is, run by its unit, once, when a run has made it due."""

from __future__ import annotations

import asyncio
import os
import signal

from minprov.commands.logs import set_up_logging
from minprov.commands.parser import Parser
from minprov.config import CONFIG_FILE, load
from minprov.errors import ProvisioningError, Reason


def run(argv: list[str]) -> int:
    """Run it and return the exit status.

    Raises:
        ProvisioningError: TOOL_FAILED, TOOL_NOT_FOUND, NOT_PERMITTED, WRITE_FAILED, CONFIG_INVALID,
            TERMINATED.

    """
    flags = vars(build_parser().parse_args(argv))
    options = load(flags.get("config"))
    if os.geteuid() != 0:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="customData is for root")
    set_up_logging(options.log_level)
    try:
        asyncio.run(_run(options.state_dir))
    except asyncio.CancelledError as error:
        raise ProvisioningError(Reason.TERMINATED, waited_for="customData") from error
    return os.EX_OK


async def _run(state_dir: str) -> None:
    from minprov.machine.system import System
    from minprov.properties.custom_data_run import execute

    task = asyncio.current_task()
    if task:
        # A unit that is stopped takes the program with it.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await execute(System(), state_dir, output=1)


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        prog="minprov custom-data",
        description="Run the program that customData is, once, when a run has made it due; its unit does this.",
    )
    parser.add_argument("--config", metavar="FILE", help=f"and FILE.d/*.toml (default: {CONFIG_FILE}, if there)")
    return parser
