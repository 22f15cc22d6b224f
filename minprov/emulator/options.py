"""What the command lines of the emulator have in common: how they refuse, and how the VM is described."""

from __future__ import annotations

import argparse
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from .tables import convert_table
from .vm import SAMPLE_VM, VM_CONVERTERS, VirtualMachine, load_vm


class Parser(argparse.ArgumentParser):
    """A parser whose refusal has the exit status of sysexits."""

    def error(self, message: str) -> NoReturn:
        """End with the usage and what is wrong."""
        self.exit(os.EX_USAGE, f"{self.format_usage()}{self.prog}: {message}\n")


def add_vm_options(parser: Parser) -> argparse._ArgumentGroup:
    """Add the options that describe the VM, and return their group."""
    group = parser.add_argument_group("the VM")
    group.add_argument("--vm", metavar="FILE", help="TOML file with the VM's properties (default: a sample VM)")
    group.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="set one property of the VM, as a TOML value or a plain string; may repeat",
    )
    return group


def virtual_machine(options: argparse.Namespace) -> VirtualMachine:
    """Return the VM that the options describe.

    Raises: ProvisioningError(CONFIG_INVALID), naming the file or --set, and the key.
    """
    vm = SAMPLE_VM if options.vm is None else load_vm(options.vm)
    changes: dict[str, object] = {}
    for setting in options.set:
        key, _, value = setting.partition("=")
        try:
            changes |= tomllib.loads(f"{key} = {value}")
        except tomllib.TOMLDecodeError:
            changes[key] = value
    return replace(vm, **convert_table(changes, VM_CONVERTERS, file=Path("--set")))
