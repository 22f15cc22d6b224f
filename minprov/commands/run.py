"""``minprov`` without a command: provision this machine, or show what that would change."""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NoReturn

from minprov import __version__
from minprov.commands.logs import LOG_LEVELS, set_up_logging
from minprov.commands.output import print_result
from minprov.config import AFTER_READY, CONFIG_FILE, FAILED, Loop, Options, load
from minprov.discs.reading import Reading
from minprov.errors import ProvisioningError, Reason
from minprov.last_resort import LastResort, NoLastResort
from minprov.limits import DRY_RUN_LIMIT, KILL_GRACE, OFF_AZURE_LIMIT, OFF_AZURE_MEDIA_WAIT, SWITCH_INTERVAL
from minprov.machine.identity import AZURE_CHASSIS_ASSET_TAG, Identity, read_identity
from minprov.machine.markers import READY, holds
from minprov.machine.paths import resolve_beneath
from minprov.outcome.result import Outcome, Result, SourceState, to_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from minprov.commands.parser import Parser


# What a limit may be without being looked at again: a run needs much less. RLIM_INFINITY is -1.
ENOUGH = {
    resource.RLIMIT_AS: 1 << 30,
    resource.RLIMIT_DATA: 1 << 28,
    resource.RLIMIT_FSIZE: 1 << 26,
    resource.RLIMIT_NOFILE: 256,
}
STACK_SIZE = 1 << 20
"""Bytes for the stack of a thread, which are 8 MiB otherwise: a limit on memory counts what nobody uses, too."""
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
# Flags that are settings, by the name that both have.
SETTINGS: dict[str, Callable[[Any], object]] = {
    "media": tuple,
    "imds_url": str,
    "wireserver_url": str,
    "timeout": float,
    "loop": Loop,
    "log_level": str,
}


def run(argv: list[str], last_resort: LastResort | NoLastResort | None = None) -> int:
    """Provision, print what came of it on stdout, and return the exit status.

    Raises:
        ProvisioningError: USAGE, NOT_PERMITTED, and in a dry run CONFIG_INVALID: before there is a run.

    """
    flags = vars(build_parser().parse_args(argv)) if argv else {}
    last_resort = last_resort or NoLastResort()
    result = _execute(flags, last_resort)
    if result.outcome is Outcome.IN_POOL:
        _wait_in_pool(result, argv, last_resort)
    if result.is_untold and result.error:
        last_resort.hand_over(result.error.reason.phrase, str(result.error)[:200])
    print_result(to_document(result), as_json=flags.get("json", False))
    return result.error.reason.exit_status if result.error else os.EX_OK


def _wait_in_pool(result: Result, argv: list[str], last_resort: LastResort | NoLastResort) -> NoReturn:
    """Become the program that waits for the VM's owner, and then a run again, with `--reprovisioned` before `argv`."""
    from minprov.machine.own_program import become

    signal.setitimer(signal.ITIMER_REAL, 0)  # it would outlive this program
    last_resort.end()  # there is no deadline until the owner has come
    kind = result.plan and result.plan.pool_type
    become("wait-in-pool", *(["--type", kind] if kind else []), "--", *argv)


def settings_of(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the flags of a run are."""
    settings: dict[str, Any] = {name: convert(flags[name]) for name, convert in SETTINGS.items() if name in flags}
    if "reprovisioned" in flags:
        settings |= {"media": (f"/proc/{os.getpid()}/fd/{flags['reprovisioned']}",), "left_pool": True}
    return settings


def _execute(flags: dict[str, Any], last_resort: LastResort | NoLastResort) -> Result:
    root, dry_run = flags.get("root", "/"), flags.get("dry_run", False)
    live = os.path.realpath(root) == "/"
    if flags.get("emulated") and not dry_run and live:
        raise ProvisioningError(Reason.USAGE, detail="--emulated needs --dry-run, or a --root other than /")
    if not os.path.isdir(root):
        raise ProvisioningError(Reason.USAGE, detail=f"--root {root} is not a directory")
    if not dry_run and os.geteuid() != 0:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="provisioning needs root", hint="try --dry-run")
    settings = settings_of(flags)
    refusal = None
    try:
        options = load(flags.get("config"), **settings)
        if options.hooks and live:
            from minprov.properties.hooks import refuse_beside_systemd

            refuse_beside_systemd()
    except ProvisioningError as error:
        if dry_run:
            raise
        options, refusal = Options(**settings), error  # the platform is to be told, which the defaults are good for
    if options.tools_path:
        os.environ["PATH"] = ":".join((*options.tools_path, os.environ.get("PATH", "")))
    # From here on the kernel ends the process in time, whatever it is doing. What was ignored is inherited as ignored.
    for number in (signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM, signal.SIGCHLD})
    signal.setitimer(signal.ITIMER_REAL, options.timeout + KILL_GRACE)
    set_up_logging("warning" if dry_run and "log_level" not in flags else options.log_level)
    identity = read_identity()
    # All that does not need a look at a directory: that one may not answer.
    last_resort.know(
        timeout=options.timeout,
        wireserver_url=options.wireserver_url,
        console=options.console,
        kvp_pool=options.kvp_pool,
        vm_id=identity.vm_id,
    )
    if dry_run:
        options = _for_dry_run(options, identity, flags)
    state_dir = _state_directory(root, options)
    last_resort.know(state_dir=state_dir)
    if options.hooks and live:
        last_resort.know(hooks=("hooks", FAILED, *options.hooks_flags))
    may_be_done = not dry_run and not flags.get("force")
    if may_be_done and state_dir and identity.dmi_uuid and holds(state_dir, READY, identity.dmi_uuid):
        return Result(outcome=Outcome.ALREADY_PROVISIONED, vm_id=identity.vm_id)
    # Until there is somebody to tell of it, a signal to stop has to wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    # A core file would hold the password.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        if any(0 <= resource.getrlimit(kind)[0] < enough for kind, enough in ENOUGH.items()):
            from minprov.machine.shortage import widen_limits

            widen_limits()
        # The emulated platform has media of its own, which is not there yet.
        reading = None if flags.get("emulated") else Reading(options)
    except (OSError, ProvisioningError) as error:
        return _too_little(error, identity)
    result = _run_in_loop(options, identity, flags, reading, refusal, last_resort)
    # A failure that the last resort is to tell comes first: it has the hooks run itself then.
    told_by_itself = not (result.is_untold and isinstance(last_resort, LastResort))
    if options.hooks and live and not dry_run and told_by_itself:
        _start_hooks(result, options)
    return result


def _start_hooks(result: Result, options: Options) -> None:
    """Leave the hooks for how the run ended, where there are some, to a process that nobody waits for."""
    if result.error and result.error.reason is not Reason.ANOTHER_RUN:
        stage = FAILED
    elif result.reported and not result.error:
        stage = AFTER_READY
    else:
        return
    if not os.path.isdir(f"{options.hooks}/{stage}.d"):
        return
    import subprocess

    from minprov.machine.own_program import own_argv, own_environment

    null = subprocess.DEVNULL
    argv, environment = own_argv("hooks", stage, *options.hooks_flags), os.environ | own_environment()
    try:
        subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, env=environment, start_new_session=True)
    except OSError as error:
        result.note(f"no hooks are run {stage}: {error.strerror}")


def _too_little(error: OSError | ProvisioningError, identity: Identity) -> Result:
    """Return the result of a run that cannot begin: the last resort tells."""
    if isinstance(error, OSError):
        error = ProvisioningError(Reason.NO_RESOURCES, detail=error.strerror)
    result = Result(error=error, vm_id=identity.vm_id)
    result.is_untold = True
    return result


def _state_directory(root: str, options: Options) -> str | None:
    try:
        return resolve_beneath(root, options.state_dir)
    except OSError:  # a loop of links, which the run comes upon as well, and tells
        return None


def _run_in_loop(
    options: Options,
    identity: Identity,
    flags: dict[str, Any],
    reading: Reading | None,
    refusal: ProvisioningError | None,
    last_resort: LastResort | NoLastResort,
) -> Result:
    import threading

    from minprov.network.event_loop import new_event_loop

    threading.stack_size(STACK_SIZE)
    sys.setswitchinterval(SWITCH_INTERVAL)

    # Directories such as /home, and what tools make, are for everyone to enter; what is not has a mode of its own.
    os.umask(0o022)
    loop = new_event_loop(options.loop)
    result = loop.run_until_complete(_main(options, identity, flags, reading, refusal, last_resort))
    # The loop is not closed: that would wait for threads, one of which a file system may hold for ever.
    if flags.get("dry_run") and not identity.on_azure and _found_nothing(result, options):
        firmware = identity.chassis_asset_tag or "unknown"
        hint = "try `python -m minprov --dry-run --emulated`"
        result.error = ProvisioningError(Reason.NOT_AZURE, chassis_asset_tag=firmware, hint=hint)
    return result


async def _main(
    options: Options,
    identity: Identity,
    flags: dict[str, Any],
    reading: Reading | None,
    refusal: ProvisioningError | None,
    last_resort: LastResort | NoLastResort,
) -> Result:
    import asyncio

    from minprov.machine.system import System
    from minprov.provision import Run

    async with AsyncExitStack() as stack:
        if flags.get("emulated"):
            try:
                from minprov.emulator.sample import emulated_platform
            except ImportError as error:
                raise ProvisioningError(Reason.USAGE, detail="this installation has no emulator") from error
            platform = await stack.enter_async_context(emulated_platform())
            options = options._replace(
                media=options.media or (platform.media,),
                imds_url=platform.imds_url,
                wireserver_url=platform.wireserver_url,
                console="",
                kvp_pool="",
            )
            identity = Identity(
                chassis_asset_tag=AZURE_CHASSIS_ASSET_TAG, dmi_uuid=platform.vm_id, vm_id=platform.vm_id
            )
        reading = reading or Reading(options)
        stack.callback(reading.abandon)
        system = System(flags.get("root", "/"), look_only=flags.get("dry_run", False))
        current = Run(options, system, identity, reading, last_resort)
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            # The loop's own way to add a handler would load `inspect`, to see that it is no coroutine.
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(current.terminate))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        if refusal:
            return await current.refuse(refusal)
        if flags.get("dry_run"):
            return await current.dry_run()
        return await current.provision(force=flags.get("force", False))


def _for_dry_run(options: Options, identity: Identity, flags: dict[str, Any]) -> Options:
    """Bound a dry run by what somebody who looks on will bear."""
    if "timeout" not in flags:
        options = options._replace(timeout=min(options.timeout, DRY_RUN_LIMIT))
    if not identity.on_azure and options.imds_url == Options().imds_url:
        options = options._replace(imds_limit=OFF_AZURE_LIMIT, media_wait=OFF_AZURE_MEDIA_WAIT)
    return options


def _found_nothing(result: Result, options: Options) -> bool:
    """Tell whether nothing of Azure is there; another cloud's metadata service has the same address and is not IMDS."""
    named = options.media or options.imds_url != Options().imds_url
    return not named and SourceState.FOUND not in (result.media.state, result.imds.state)


def build_parser() -> Parser:
    """Return the parser of a run."""
    import argparse

    from minprov.commands.parser import Parser, seconds

    defaults = Options()
    parser = Parser(
        prog="minprov",
        description="Provision this machine as the Azure VM it is, once, and tell the platform that it is ready.",
        epilog="Exit statuses are those of sysexits.h; 0 means done, or nothing to do.",
    )
    sources = parser.add_argument_group("sources")
    sources.add_argument(
        "--media",
        metavar="PATH",
        action="append",
        help="device, image file, directory or ovf-env.xml to read; may repeat (default: discover the drive)",
    )
    sources.add_argument("--imds-url", metavar="URL", help=f"metadata service (default: {defaults.imds_url})")
    sources.add_argument("--wireserver-url", metavar="URL", help=f"WireServer (default: {defaults.wireserver_url})")
    sources.add_argument(
        "--emulated",
        action="store_true",
        help="use the built-in emulated platform; with --dry-run or --root (default: no)",
    )
    effects = parser.add_argument_group("effects")
    effects.add_argument(
        "--dry-run", action="store_true", help="show what would change; write and post nothing (default: no)"
    )
    effects.add_argument("--root", metavar="DIR", help="apply to the tree at DIR (default: /)")
    effects.add_argument("--force", action="store_true", help="apply again what an earlier run applied (default: no)")
    effects.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, help=f"for the whole run (default: {defaults.timeout:g})"
    )
    effects.add_argument("--config", metavar="FILE", help=f"and FILE.d/*.toml (default: {CONFIG_FILE}, if there)")
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print one JSON document (default: text)")
    output.add_argument("--log-level", choices=LOG_LEVELS, help=f"to stderr (default: {defaults.log_level})")
    output.add_argument("--version", action="version", version=f"minprov {__version__}")
    # The descriptor of the ovf-env that a VM has got with its owner: what `wait-in-pool` becomes.
    parser.add_argument("--reprovisioned", type=int, help=argparse.SUPPRESS)
    debugging = parser.add_argument_group("debugging")
    debugging.add_argument("--loop", choices=[loop.value for loop in Loop], help="event loop (default: auto)")
    return parser
