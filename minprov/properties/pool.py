"""A VM of a pool: whether it can wait here for its owner. The waiting itself is a program of its own."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from minprov.actions import WaitInPool
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System
from minprov.properties.inspection import Inspection
from minprov.properties.required_duty import SYSTEMD

UNIT_DIRECTORIES = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
DROP_INS = "minprov.service.d"
NO_LIMIT = r"^\s*TimeoutStartSec\s*=\s*(infinity|0)\s*$"
DROP_IN = "/etc/systemd/system/minprov.service.d/wait-in-pool.conf"
NO_DROP_IN = f"systemd would end minprov.service: {DROP_IN} with TimeoutStartSec=infinity is missing"


async def inspect(system: System, action: WaitInPool) -> Inspection:
    """Tell that the VM would wait.

    Raises:
        ProvisioningError: UNSUPPORTED_PREPROVISIONING in a tree; CONFIG_INVALID where systemd would end the waiting.

    """
    if not system.live:
        detail = "a tree has nobody to wait for"
        raise ProvisioningError(Reason.UNSUPPORTED_PREPROVISIONING, type=action.kind, detail=detail)
    if system.exists(SYSTEMD) and not may_wait(system):
        raise ProvisioningError(Reason.CONFIG_INVALID, key="preprovisioning", detail=NO_DROP_IN)
    return Inspection(False, "Ready for the pool, then a new ovf-env from IMDS")


def may_wait(system: System) -> bool:
    """Tell whether a drop-in takes the time limit from minprov.service."""
    for directory in UNIT_DIRECTORIES:
        with suppress(OSError):
            drop_ins = system.path(f"{directory}/{DROP_INS}")
            for name in os.listdir(drop_ins):
                if name.endswith(".conf") and has_no_limit(system.read_text(f"{directory}/{DROP_INS}/{name}")):
                    return True
    return False


def has_no_limit(drop_in: str) -> bool:
    """Tell whether a unit's drop-in takes the time limit from its start: systemd.service(5)."""
    return re.search(NO_LIMIT, drop_in, re.MULTILINE) is not None
