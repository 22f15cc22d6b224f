"""An account that is there from an earlier boot, whose state was not kept: nothing of it is changed.

With the state directory on a file system that does not last, the second boot finds neither the facts of the first one
nor the disc, which alone had the password. Then the account is as the first boot left it.
"""

from __future__ import annotations

from minprov.actions import KeepAccount
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System
from minprov.properties.inspection import Inspection
from minprov.properties.name_service import find_user
from minprov.properties.password import stored_field


async def inspect(system: System, action: KeepAccount) -> Inspection:
    """Look for the account and a password of its own; raises `ProvisioningError` with `Reason.NO_CREDENTIALS`."""
    try:
        field = stored_field(system, action.username) if find_user(system, action.username) else None
    except ProvisioningError as error:
        if error.reason is not Reason.NOT_PERMITTED:
            raise
        return Inspection(None, "its password cannot be seen without privileges")
    if not field or field.startswith(("!", "*")):
        raise ProvisioningError(Reason.NO_CREDENTIALS, username=action.username)
    return Inspection(True, "has a password already, and is left as it is", verified=False)
