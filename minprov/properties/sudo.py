"""What the user may do as root: a file in sudoers.d, sudoers(5)."""

from __future__ import annotations

import os
import stat

from minprov.actions import GrantSudo
from minprov.machine.system import System
from minprov.machine.tools import find_tool, run_tool
from minprov.properties.inspection import Inspection

SUDOERS = "/etc/sudoers"
MODE = 0o440


async def inspect(system: System, action: GrantSudo) -> Inspection:
    """Read the file back; a system without sudo needs none."""
    if not system.exists(SUDOERS):
        return Inspection(True, "sudo is not installed", verified=False)
    contents = system.read(action.path)
    if contents is None:
        return Inspection(False, "no file")
    found = os.stat(system.path(action.path))
    holds = contents == _rule(action) and stat.S_IMODE(found.st_mode) == MODE and found.st_uid == os.geteuid()
    return Inspection(holds, "grants it" if holds else "says something else")


async def converge(system: System, action: GrantSudo) -> None:
    """Have the rule checked by visudo, where there is one, and put it in place."""
    rule = _rule(action)
    if visudo := find_tool("visudo"):
        await run_tool([visudo, "--check", "--quiet", "--file=-"], stdin=rule)
    await system.replace(action.path, rule, mode=MODE)


def _rule(action: GrantSudo) -> bytes:
    tag = "" if action.ask_password else " NOPASSWD:"
    comment = "# Written by minprov for the administrator that this VM was created with.\n"
    return f"{comment}{action.username} ALL=(ALL:ALL){tag} ALL\n".encode()
