"""SSH password login: what sshd itself says is in force, and a drop-in where that has to change, sshd_config(5).

A drop-in wins over what an administrator later writes in sshd_config, and has broken password resets elsewhere
(cloud-init#4335), so one is written only when sshd does not behave as it should already.
"""

from __future__ import annotations

import os
import signal
import stat
from contextlib import suppress

from minprov.actions import ConfigureSshd
from minprov.errors import ProvisioningError
from minprov.machine.system import System
from minprov.machine.tools import run_tool
from minprov.properties.inspection import Inspection

CONFIG = "/etc/ssh/sshd_config"
PID_FILE = "/run/sshd.pid"
# sshd wants it even to print its configuration. Its unit makes it, which has not run yet at first boot.
PRIVILEGE_SEPARATION_DIRECTORY = "/run/sshd"


async def inspect(system: System, action: ConfigureSshd) -> Inspection:
    """Ask sshd for its effective configuration where this user logs in from elsewhere."""
    sshd = system.own_tool("sshd")
    if sshd is None:
        return Inspection(True, "sshd is not installed", verified=False)
    if not system.live:
        return _inspect_tree(system, action)
    if not system.exists(PRIVILEGE_SEPARATION_DIRECTORY):
        return Inspection(None, "not known before sshd has run")
    try:
        found = await _effective(system, sshd, action)
    except ProvisioningError as error:
        if os.geteuid() == 0:
            raise
        return Inspection(None, f"cannot be seen without privileges ({error.data.get('detail')})")
    wanted = _value(action)
    present = f"PasswordAuthentication {found}"
    return Inspection(found == wanted, present if found == wanted else f"{present}, to be {wanted}")


async def converge(system: System, action: ConfigureSshd) -> None:
    """Write the drop-in where it is needed, make sure that it counts, and have a running sshd read it."""
    sshd = system.own_tool("sshd")
    if sshd is None:
        return
    if not system.live:
        await system.replace(action.drop_in, _contents(action), mode=0o644)
        await _include_first(system, action.drop_in)
        return
    os.makedirs(PRIVILEGE_SEPARATION_DIRECTORY, 0o755, exist_ok=True)
    if await _effective(system, sshd, action) == _value(action):
        return
    await system.replace(action.drop_in, _contents(action), mode=0o644)
    if await _effective(system, sshd, action) != _value(action):
        await _include_first(system, action.drop_in)
    _reload()


def _inspect_tree(system: System, action: ConfigureSshd) -> Inspection:
    """Look for the drop-in, and that it comes first.

    A tree's sshd may be for another architecture, and has no /dev to run with: what it would say cannot be asked.
    """
    in_place = system.read(action.drop_in) == _contents(action)
    comes_first = (system.read(CONFIG) or b"").startswith(_include(action.drop_in))
    return Inspection(in_place and comes_first, "drop-in" if in_place and comes_first else "no drop-in")


def _value(action: ConfigureSshd) -> str:
    return "yes" if action.password_authentication else "no"


def _contents(action: ConfigureSshd) -> bytes:
    comment = "# Written by minprov: the platform says so for this VM.\n"
    return f"{comment}PasswordAuthentication {_value(action)}\n".encode()


def _include(drop_in: str) -> bytes:
    return f"Include {drop_in}\n".encode()


async def _effective(system: System, sshd: list[str], action: ConfigureSshd) -> str:
    # Match blocks count, and sshd evaluates them only for a connection that it is told of.
    connection = f"user={action.username},host=localhost,addr=127.0.0.1"
    printed = await run_tool([*sshd, "-T", "-C", connection])
    settings = dict(line.split(" ", 1) for line in printed.splitlines() if " " in line)
    return settings.get("passwordauthentication", "unknown")


async def _include_first(system: System, drop_in: str) -> None:
    """Put the drop-in before all else, since the first value wins: the image's configuration does not include it."""
    config = system.read(CONFIG)
    if config is None or config.startswith(_include(drop_in)):
        return
    mode = stat.S_IMODE(os.stat(system.path(CONFIG)).st_mode)
    await system.replace(CONFIG, _include(drop_in) + config, mode=mode)


def _reload() -> None:
    """Send SIGHUP to sshd if it runs: the one way that works under every init system."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        with open(PID_FILE, encoding="ascii") as stream:
            pid = int(stream.read())
        with open(f"/proc/{pid}/comm", encoding="ascii") as stream:
            is_sshd = stream.read().strip() == "sshd"
        if is_sshd:
            os.kill(pid, signal.SIGHUP)
