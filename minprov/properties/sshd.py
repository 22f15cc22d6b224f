"""SSH password login: what sshd itself says is in force, and a drop-in where that has to change, sshd_config(5).

A drop-in wins over what an administrator later writes in sshd_config, and has broken password resets elsewhere
(cloud-init#4335), so one is written only when sshd does not behave as it should already.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress

from minprov.actions import ConfigureSshd
from minprov.errors import ProvisioningError, Reason
from minprov.properties.host_keys import SSHD
from minprov.properties.inspection import Inspection
from minprov.system import System

CONFIG = "/etc/ssh/sshd_config"
PID_FILE = "/run/sshd.pid"
PRIVILEGE_SEPARATION_DIRECTORY = "/run/sshd"


async def inspect(system: System, action: ConfigureSshd) -> Inspection:
    """Ask sshd for its effective configuration where this user logs in from elsewhere."""
    if not system.exists(SSHD):
        return Inspection(True, "sshd is not installed")
    try:
        effective = await _effective(system, action.username)
    except ProvisioningError as error:
        if os.geteuid() == 0:
            raise
        return Inspection(None, f"cannot be seen without privileges ({error.data.get('detail')})")
    found = effective.get("passwordauthentication", "unknown")
    wanted = "yes" if action.password_authentication else "no"
    present = f"PasswordAuthentication {found}"
    return Inspection(found == wanted, present if found == wanted else f"{present}, to be {wanted}")


async def converge(system: System, action: ConfigureSshd) -> None:
    """Write the drop-in, make sure that sshd reads it, and have a running sshd do so."""
    value = "yes" if action.password_authentication else "no"
    contents = f"# Written by minprov: the platform says so for this VM.\nPasswordAuthentication {value}\n"
    await system.replace(action.drop_in, contents.encode(), mode=0o644)
    config = await system.read_text(CONFIG)
    directory = re.escape(os.path.dirname(action.drop_in))
    if not re.search(rf"^\s*Include\s.*{directory}/", config, re.MULTILINE | re.IGNORECASE):
        included = f"Include {action.drop_in}\n{config}"
        await system.replace(CONFIG, included.encode(errors="surrogateescape"), mode=0o644)
    if system.live:
        _reload()


async def _effective(system: System, username: str) -> dict[str, str]:
    if system.live and os.geteuid() == 0:
        # Made by sshd's own unit as a rule, which has not run yet at first boot.
        os.makedirs(PRIVILEGE_SEPARATION_DIRECTORY, 0o755, exist_ok=True)
    sshd = system.own_tool("sshd")
    if sshd is None:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="sshd")
    # Match blocks count, and sshd evaluates them only for a connection that it is told of.
    connection = f"user={username},host=localhost,addr=127.0.0.1"
    printed = await system.run([*sshd, "-T", "-C", connection])
    return dict(line.split(" ", 1) for line in printed.splitlines() if " " in line)


def _reload() -> None:
    """Send SIGHUP to sshd if it runs: the one way that works under every init system."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        with open(PID_FILE, encoding="ascii") as stream:
            pid = int(stream.read())
        with open(f"/proc/{pid}/comm", encoding="ascii") as stream:
            is_sshd = stream.read().strip() == "sshd"
        if is_sshd:
            os.kill(pid, signal.SIGHUP)
