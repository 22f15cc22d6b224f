"""``minprov wait-in-pool``: what a run becomes that finds itself on a VM of the platform's pool.

It reports Ready to the pool and waits, with no deadline. When the VM has got its owner it becomes a run again, which
has the new ovf-env from memory that this process leaves open to it.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
from typing import TYPE_CHECKING

from minprov.commands.output import print_text
from minprov.commands.parser import Parser
from minprov.config import OnPool, load
from minprov.errors import ProvisioningError, Reason

if TYPE_CHECKING:
    from minprov.config import Options

OVF_ENV = "ovf-env"


def run(argv: list[str]) -> int:
    """Wait for the owner, and become the run that provisions the VM; what is returned is a failure's status.

    Raises:
        ProvisioningError: USAGE, CONFIG_INVALID, NOT_PERMITTED; what has kept the pool from being told of Ready.

    """
    from minprov.commands.run import build_parser as build_run_parser
    from minprov.commands.run import settings_of

    flags = vars(build_parser().parse_args(argv))
    arguments = [word for index, word in enumerate(flags.get("arguments", ())) if (index, word) != (0, "--")]
    run_flags = vars(build_run_parser().parse_args(arguments))
    options = load(run_flags.get("config"), **settings_of(run_flags))
    if options.preprovisioning is OnPool.REFUSE:
        print_text(["preprovisioning is refused"])
        return os.EX_OK
    if os.geteuid() != 0:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="provisioning needs root")
    # A machine that is shut down while it waits has not failed.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(os.EX_OK))
    gc.enable()  # which the way in has switched off, for a program that ends soon
    document = _wait(options, flags.get("type"))
    descriptor = os.memfd_create(OVF_ENV)
    os.write(descriptor, document)
    os.set_inheritable(descriptor, True)
    from minprov.machine.own_program import become

    return become("--reprovisioned", str(descriptor), *arguments)


def _wait(options: Options, kind: str | None) -> bytes:
    """Return the new ovf-env; without a type, of a VM that is in its pool already."""
    import asyncio

    from minprov.commands.logs import set_up_logging
    from minprov.duties.wait_in_pool.duty import OS_DISK, enter, fetch_ovf_env
    from minprov.limits import KILL_GRACE
    from minprov.machine import markers
    from minprov.machine.files import file_error
    from minprov.machine.identity import read_identity
    from minprov.machine.system import System

    set_up_logging(options.log_level)
    identity, system = read_identity(), System()
    state_dir, uuid = system.path(options.state_dir), identity.dmi_uuid
    waits = uuid and (kind or markers.holds(state_dir, markers.POOL, uuid))
    if not uuid or not waits or markers.holds(state_dir, markers.APPLIED, uuid):
        raise ProvisioningError(Reason.USAGE, detail="this VM waits in no pool", hint="a run of minprov starts it")
    try:
        # Not closed: the lock is the process's, and another run finds it taken.
        fcntl.flock(os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_EX)
    except OSError as error:
        raise file_error(error, options.state_dir) from error
    if kind is not None:
        signal.setitimer(signal.ITIMER_REAL, options.timeout + KILL_GRACE)
        if failure := asyncio.run(enter(options, system, identity, kind)):
            raise failure
        signal.setitimer(signal.ITIMER_REAL, 0)
    if kind == OS_DISK:
        while True:  # the platform shuts the machine down, and makes another VM of its disk
            signal.pause()
    return asyncio.run(fetch_ovf_env(options))


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        prog="minprov wait-in-pool",
        description="Report Ready to the platform's pool, wait for the VM's owner, and provision the VM. A run on a VM "
        "of a pool becomes this where preprovisioning is `wait`; it is not for people to start.",
    )
    parser.add_argument("--type", metavar="TYPE", help="the pool's (default: the VM is in it already)")
    parser.add_argument("arguments", nargs="*", metavar="FLAG", help="the flags of the run, behind -- (default: none)")
    return parser
