"""Whether QEMU can use this machine's KVM, by booting something with it."""

from __future__ import annotations

import functools
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .architecture import X64
from .tools import find_tool

if TYPE_CHECKING:
    from .architecture import Architecture

_DEVICE = "/dev/kvm"
_LONG_MODE = Path(__file__).parents[1] / "data/long-mode.img"
_REACHED = 33
"""What the boot sector makes QEMU's exit status, from 64-bit mode."""
_LIMIT = 30.0


def is_accelerated(architecture: Architecture) -> bool:
    """Tell whether KVM is used: for x64 where it works, and not yet for others."""
    return architecture is X64 and kvm_works()


@functools.cache
def kvm_works() -> bool:
    """Tell whether a boot sector that enters 64-bit mode gets there with KVM no later than by emulation.

    A device that opens is no proof: in a virtual machine KVM may run the firmware and hang where a kernel begins, or
    take ten times as long as emulation for it. Half a second where it works, twice that where it does not.

    Raises: ProvisioningError(TOOL_NOT_FOUND) without QEMU.
    """
    qemu = find_tool("qemu-system-x86_64")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return False
    started = time.monotonic()
    return enters_long_mode(qemu, "tcg") and enters_long_mode(qemu, "kvm", time.monotonic() - started)


def enters_long_mode(qemu: str, accelerator: str, limit: float = _LIMIT) -> bool:
    """Boot the sector with one of QEMU's accelerators and tell whether it gets there within `limit` seconds."""
    command = [
        *(qemu, "-machine", "pc", "-cpu", "max,la57=off,svm=off", "-m", "16"),
        *("-nodefaults", "-display", "none", "-accel", accelerator, "-device", "isa-debug-exit,iobase=0xf4"),
        *("-drive", f"file={_LONG_MODE.as_posix().replace(',', ',,')},format=raw,if=floppy,readonly=on"),
    ]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=limit).returncode == _REACHED
    except subprocess.TimeoutExpired:
        return False
