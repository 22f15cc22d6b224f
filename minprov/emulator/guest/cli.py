"""Command line of ``python -m minprov.emulator boot IMAGE``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minprov.commands import check
from minprov.emulator.faults import load_faults
from minprov.emulator.options import Parser, add_vm_options, virtual_machine
from minprov.errors import ProvisioningError, Reason

from .architecture import ARCHITECTURES, X64
from .boot import Trial, try_image
from .image import find_architecture, open_image

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EXIT_NOT_PROVISIONED = 1


def main(arguments: Sequence[str]) -> int:
    """Boot an image against the emulated platform; return 0 if it provisioned itself, 1 if not."""
    options = _parse(arguments)
    try:
        trial = _trial(options)
        if options.check and check.run([options.image, "--generation", "2" if trial.uefi else "1"]):
            print("not booted: put right what fails, or leave --check out", file=sys.stderr)  # noqa: T201
            return EXIT_NOT_PROVISIONED
        provisioned = asyncio.run(_try(trial))
    except ProvisioningError as error:
        print(f"minprov.emulator: {error}", file=sys.stderr)  # noqa: T201  # the program's own voice
        return error.reason.exit_status
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 128 + signal.SIGINT
    return os.EX_OK if provisioned else EXIT_NOT_PROVISIONED


async def _try(trial: Trial) -> bool:
    current = asyncio.current_task()
    assert current is not None  # noqa: S101  # this is one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
    return await try_image(trial, say=lambda line: print(line, flush=True))  # noqa: T201


def _trial(options: argparse.Namespace) -> Trial:
    vm = virtual_machine(options)
    if options.faults:
        load_faults(options.faults)
    if "password" in options.login and vm.password is None:
        raise ProvisioningError(Reason.USAGE, option="--login password", detail="the VM has no password")
    image = open_image(options.image)
    architecture = ARCHITECTURES[options.arch] if options.arch else find_architecture(image)
    firmware = options.firmware or ("bios" if architecture is X64 else "uefi")
    if firmware == "bios" and architecture is not X64:
        raise ProvisioningError(Reason.USAGE, option="--firmware bios", detail=f"{architecture.name} has UEFI alone")
    return Trial(
        image=image,
        architecture=architecture,
        vm=vm,
        faults=options.faults,
        uefi=firmware == "uefi",
        has_media=not options.no_media,
        logins=tuple(dict.fromkeys(options.login)),
        limit=options.limit,
        memory=options.memory,
        console=options.console,
        page=options.report,
        junit=options.junit,
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m minprov.emulator boot",
        description="Boot a disk image under QEMU on the emulated platform, and tell whether it provisions itself. "
        "The image is not written to. The exit status is 0 if it does and 1 if it does not.",
        epilog="docs/prove-your-image.md has an example and what is needed.",
    )
    parser.add_argument("image", metavar="IMAGE", help="disk image: raw, qcow2, VHD, VHDX or VMDK")
    machine = add_vm_options(parser)
    machine.add_argument(
        "--arch", choices=ARCHITECTURES, help="its processor (default: what its EFI loader is for, else x64)"
    )
    machine.add_argument("--firmware", choices=["bios", "uefi"], help="what starts it (default: bios, for Arm64 uefi)")
    machine.add_argument("--memory", metavar="MIB", type=int, default=1024, help="(default: 1024)")
    machine.add_argument("--no-media", action="store_true", help="without provisioning media (default: with)")
    behaviour = parser.add_argument_group("behaviour")
    behaviour.add_argument(
        "--check", action="store_true", help="check the image first, and boot it if nothing fails (default: do not)"
    )
    behaviour.add_argument("--faults", metavar="FILE", type=Path, help="fault script (default: everything works)")
    behaviour.add_argument(
        "--login",
        choices=["key", "password"],
        action="append",
        default=[],
        help="log in by SSH after Ready, with a key made for it or the VM's password; may repeat (default: do not)",
    )
    behaviour.add_argument(
        "--limit", metavar="SECONDS", type=float, default=600, help="for the guest to report (default: 600)"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--console", metavar="FILE", type=Path, help="keep the serial console (default: do not)")
    output.add_argument(
        "--report", metavar="FILE", type=Path, help="write what happened as an HTML page (default: do not)"
    )
    output.add_argument("--junit", metavar="FILE", type=Path, help="write the verdict as JUnit XML (default: do not)")
    return parser.parse_args(arguments)
