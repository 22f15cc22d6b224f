"""Other provisioning agents on the same system: two of them would race for the media and for the account.

waagent and cloud-init have lost half an hour waiting for each other (WALinuxAgent#2025, #1359).
"""

from __future__ import annotations

import logging
import os

from minprov.config import OnOtherProvisioner
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System

logger = logging.getLogger(__name__)

# Made at each boot by cloud-init's own generator when it found itself enabled and on a platform it knows.
CLOUD_INIT_ENABLED = "/run/cloud-init/enabled"
WAAGENT_CONFIG = "/etc/waagent.conf"
WAAGENT_UNITS = ("walinuxagent.service", "waagent.service")
WAAGENT_WANTS = "/etc/systemd/system/multi-user.target.wants"
# Settings under which waagent leaves provisioning alone: `Provisioning.Enabled` is the older one.
WAAGENT_ABSTAINS = frozenset({"provisioning.agent=disabled", "provisioning.enabled=n"})


def refuse_other_provisioners(system: System, choice: OnOtherProvisioner) -> None:
    """Raise `ProvisioningError` with `Reason.OTHER_PROVISIONER` where one is enabled, unless that is to be ignored."""
    for agent, enabled in (("cloud-init", _cloud_init_enabled(system)), ("waagent", _waagent_enabled(system))):
        if enabled and choice is OnOtherProvisioner.REFUSE:
            raise ProvisioningError(Reason.OTHER_PROVISIONER, agent=agent)
        if enabled:
            logger.warning("%s is enabled too, which the configuration says to ignore", agent)


def _cloud_init_enabled(system: System) -> bool:
    return system.exists(CLOUD_INIT_ENABLED)


def _waagent_enabled(system: System) -> bool:
    wants = system.path(WAAGENT_WANTS)
    if not any(os.path.lexists(f"{wants}/{unit}") for unit in WAAGENT_UNITS):
        return False
    try:
        with open(system.path(WAAGENT_CONFIG), encoding="utf-8", errors="replace") as stream:
            settings = {"".join(line.split()).lower() for line in stream}
    except OSError:
        return True
    return not settings & WAAGENT_ABSTAINS
