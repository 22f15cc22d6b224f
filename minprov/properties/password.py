"""The account's password, where this system keeps it: its entry in shadow(5), or else in passwd(5)."""

from __future__ import annotations

import os

from minprov.actions import SetPassword
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import find_password_field
from minprov.machine.blocking import in_thread
from minprov.machine.password_hash import is_hash_of
from minprov.machine.system import System
from minprov.properties.inspection import Inspection
from minprov.properties.name_service import PASSWD
from minprov.properties.user import set_password_field

SHADOW = "/etc/shadow"


async def inspect(system: System, action: SetPassword) -> Inspection:
    """Verify the password against the account's entry."""
    try:
        field = stored_field(system, action.username)
    except ProvisioningError as error:
        if error.reason is not Reason.NOT_PERMITTED:
            raise
        return Inspection(None, "cannot be seen without privileges")
    if field is None:
        return Inspection(False, "no entry")
    if field == action.password_hash.reveal():
        return Inspection(True, "this one")
    if field.startswith("$"):
        same = await in_thread(is_hash_of, action.password, field)
        return Inspection(*((True, "this one") if same else (False, "another one")))
    return Inspection(False, "none")


def stored_field(system: System, username: str) -> str | None:
    """Return the account's password field, or None without one: passwd has it itself, or ``x`` if shadow has it."""
    field = find_password_field(system.read_text(PASSWD), username)
    return find_password_field(system.read_text(SHADOW), username) if field == "x" else field


async def converge(system: System, action: SetPassword) -> None:
    """Hand the hash to the system's tool."""
    await set_password_field(system, action.username, action.password_hash.reveal())
    await system.sync(os.path.dirname(SHADOW))
