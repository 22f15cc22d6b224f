"""What the user may do as root where the system has doas and no sudo: a rule in doas.conf(5).

Of several rules that match the last one counts, so the rule stands at the end. ``doas -C`` tells whether doas can read
the whole; it tells whoever asks what he may do himself, and nobody what another one may.
"""

from __future__ import annotations

import os
import stat

from minprov.actions import GrantSudo
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import Account
from minprov.machine.system import System
from minprov.machine.tools import run_tool
from minprov.properties.inspection import Inspection

CONFIG = "/etc/doas.conf"
MODE = 0o600
COMMENT = "# Written by minprov for the administrator that this VM was created with.\n"


async def inspect(system: System, action: GrantSudo, account: Account | None, doas: list[str]) -> Inspection:
    """Ask doas what the user may do."""
    text = system.read_text(CONFIG)
    if account is None or not text.endswith(_rule(action)):
        return Inspection(False, "no account" if account is None else f"no rule in {CONFIG}")
    if system.live:
        found = os.stat(CONFIG)
        if found.st_uid != 0 or found.st_mode & 0o022:
            return Inspection(False, f"doas refuses {CONFIG}, by its owner or mode")
        try:
            await run_tool([*doas, "-C", CONFIG])
        except ProvisioningError as error:
            detail = error.data.get("detail")
            raise ProvisioningError(Reason.SUDO_REFUSED, username=account.name, detail=detail) from error
    return Inspection(True, "doas grants it")


async def converge(system: System, action: GrantSudo) -> None:
    """Put the rule at the end of the configuration."""
    text = system.read_text(CONFIG).removesuffix(_rule(action))
    mode = stat.S_IMODE(os.stat(system.path(CONFIG)).st_mode) & ~0o022 if system.exists(CONFIG) else MODE
    line_end = "\n" if text and not text.endswith("\n") else ""
    contents = f"{text}{line_end}{_rule(action)}".encode(errors="surrogateescape")
    await system.replace(CONFIG, contents, mode=mode)


def _rule(action: GrantSudo) -> str:
    option = "" if action.ask_password else " nopass"
    # In quotes a name such as "as" or "cmd" is no word of the grammar: yylex in doas' parse.y.
    return f'{COMMENT}permit{option} "{action.username}" as root\n'
