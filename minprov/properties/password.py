"""The account's password: its shadow entry, shadow(5)."""

from __future__ import annotations

import os

from minprov.actions import SetPassword
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import find_password_field
from minprov.formats.sha_crypt import verify
from minprov.machine.system import System
from minprov.properties.inspection import Inspection
from minprov.properties.user import set_password_field

SHADOW = "/etc/shadow"


async def inspect(system: System, action: SetPassword) -> Inspection:
    """Verify the password against the shadow entry."""
    try:
        field = find_password_field(system.read_text(SHADOW), action.username)
    except ProvisioningError as error:
        if error.reason is not Reason.NOT_PERMITTED:
            raise
        return Inspection(None, "cannot be seen without privileges")
    if field is None:
        return Inspection(False, "no shadow entry")
    if field == action.password_hash.reveal():
        return Inspection(True, "this one")
    if field.startswith("$"):
        return Inspection(*((True, "this one") if verify(action.password, field) else (False, "another one")))
    return Inspection(False, "none")


async def converge(system: System, action: SetPassword) -> None:
    """Hand the hash to the system's tool."""
    await set_password_field(system, action.username, action.password_hash.reveal())
    await system.sync(os.path.dirname(SHADOW))
