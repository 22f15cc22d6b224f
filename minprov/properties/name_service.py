"""Users and groups as the system finds them: in its own files, then in others: nsswitch.conf(5), asked by getent(1).

Account tools look into all of them before they make an account, and change the files alone.
"""

from __future__ import annotations

import logging

from minprov.errors import ProvisioningError
from minprov.formats.accounts import Account, find_account
from minprov.limits import NAME_SERVICE_LIMIT
from minprov.machine.system import System
from minprov.machine.tools import run_tool

logger = logging.getLogger(__name__)

PASSWD, CONFIG = "/etc/passwd", "/etc/nsswitch.conf"
# The files, and what systemd makes of itself: root, nobody, and users that a service has while it runs.
LOCAL = frozenset({"files", "compat", "systemd"})


def find_user(system: System, username: str) -> Account | None:
    """Return the user's passwd entry, that of a directory service where its account was adopted, or None."""
    adopted = system.directory_accounts.get(username, "")
    return find_account(system.read_text(PASSWD), username) or find_account(adopted, username)


async def find_entry(system: System, database: str, name: str) -> str | None:
    """Return the entry that any database has for the name, or None; where there are the files only, nobody is asked."""
    asks = system.live and system.directory_answers and _has_others(system, database)
    getent = system.own_tool("getent") if asks else None
    if getent is None:
        return None
    try:
        return (await run_tool([*getent, database, "--", name], limit=NAME_SERVICE_LIMIT)).strip() or None
    except ProvisioningError as error:
        if error.data.get("exit_status") != "2":  # getent(1): not found
            logger.warning("other databases are not asked: %s", error)
            system.directory_answers = False
        return None


async def find_groups(system: System, username: str) -> set[str]:
    """Return the names of the groups that a user is in as other databases have them: initgroups(3), by getent(1)."""
    listed = await find_entry(system, "initgroups", username)
    numbers = listed.split()[1:] if listed else []
    entries = [await find_entry(system, "group", number) for number in numbers]
    return {entry.partition(":")[0] for entry in entries if entry}


def _has_others(system: System, database: str) -> bool:
    lines = [line.partition("#")[0].partition(":") for line in system.read_text(CONFIG).splitlines()]
    services = {key.strip(): words.split() for key, _, words in reversed(lines)}  # the first line counts
    if database == "initgroups" and database not in services:
        database = "group"
    return any(word.isidentifier() and word not in LOCAL for word in services.get(database, ()))
