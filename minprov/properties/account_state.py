"""What of an account keeps its user out, whatever the credentials: its shell, its age, a closed system.

The age of the administrator's account is put right: the platform has just given it to somebody. The shell is the image
maker's choice, and so is a system that admits nobody.
"""

from __future__ import annotations

import os
import time

from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import Account, find_fields
from minprov.formats.ageing import EXPIRES, LAST_CHANGE, find_ageing_fault
from minprov.machine.account_locks import run_account_tool
from minprov.machine.manifest import AGEING, Effect, digest
from minprov.machine.system import System
from minprov.properties.login import NO_SHELLS

SHADOW = "/etc/shadow"
NOLOGIN = "/etc/nologin"  # not /run/nologin, which is there until the boot is over: systemd-user-sessions.service
DEFAULT_SHELL = "/bin/sh"  # of an empty field, passwd(5)
DAY = 86400


def require_open(system: System, username: str, shell: str) -> None:
    """Raise `ProvisioningError` where the shell, or the system, admits nobody but root."""
    shell = shell or DEFAULT_SHELL
    path = system.path(shell)
    problem = None
    if os.path.basename(shell) in NO_SHELLS:
        problem = "it ends at once"
    elif system.live and not os.path.isfile(path):  # a tree may be one that is not whole yet
        problem = "there is no such file"
    elif system.live and not os.stat(path).st_mode & 0o111:
        problem = "it is not executable"
    if problem:
        raise ProvisioningError(Reason.LOGIN_SHELL, username=username, shell=shell, detail=problem)
    if username != "root" and system.exists(NOLOGIN):
        raise ProvisioningError(Reason.LOGINS_CLOSED, path=NOLOGIN)


def find_fault(system: System, account: Account) -> str | None:
    """Return what the account's age has against a login, or None; without privileges it cannot be seen."""
    try:
        return find_ageing_fault(system.read_text(SHADOW), account.name, int(time.time()) // DAY)
    except ProvisioningError as error:
        if error.reason is not Reason.NOT_PERMITTED:
            raise
        return None


async def mend(system: System, account: Account) -> None:
    """Have the account and its password count as new, where their age is in the way."""
    fault = find_fault(system, account)
    if fault is None:
        return
    chage = system.account_tool("chage")
    if chage is None:
        raise ProvisioningError(Reason.ACCOUNT_EXPIRED, username=account.name, detail=f"{fault}; there is no chage")
    today = str(int(time.time()) // DAY)
    effect = Effect(AGEING, account.name, sha256=digest(f"{today}:".encode()), before=stored_days(system, account.name))
    await _set_days(system, chage, account.name, today, "", effect)


def stored_days(system: System, username: str) -> str | None:
    """Return the days of the last change and of the expiry as an effect has them, or None without an entry."""
    fields = find_fields(system.read_text(SHADOW), username)
    return None if fields is None or len(fields) <= EXPIRES else f"{fields[LAST_CHANGE]}:{fields[EXPIRES]}"


async def put_back(system: System, effect: Effect) -> None:
    """Give an account the age again that it had before."""
    chage = system.account_tool("chage")
    if chage is None:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="chage")
    last_change, _, expires = (effect.before or ":").partition(":")
    await _set_days(system, chage, effect.target, last_change, expires)


async def _set_days(
    system: System, chage: list[str], username: str, last_change: str, expires: str, *effects: Effect
) -> None:
    # -1 stands for an empty field, chage(1).
    days = ["--lastday", last_change or "-1", "--expiredate", expires or "-1"]
    await run_account_tool(system, [*chage, *days, "--", username], *effects)
