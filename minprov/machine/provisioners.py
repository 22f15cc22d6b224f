"""Other provisioning agents on the same system: two of them would race for the media, the account and the report.

waagent and cloud-init have lost half an hour waiting for each other (WALinuxAgent#2025, #1359). One table says what
each is called, and one function for each kind of init system what it starts.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError

if TYPE_CHECKING:
    from collections.abc import Collection

    from minprov.machine.system import System


class Provisioner(NamedTuple):
    """What a provisioning agent is called: its systemd units, and its scripts under other init systems.

    A file, or a word on the kernel's command line, may say of an agent that it is off although it is enabled, or on.
    """

    name: str
    units: tuple[str, ...]
    scripts: tuple[str, ...]
    off_by_file: tuple[str, ...] = ()
    off_by_word: tuple[str, ...] = ()
    on_by_file: tuple[str, ...] = ()
    on_by_word: tuple[str, ...] = ()


PROVISIONERS = (
    # Its generator decides anew at each boot, before all units: systemd/cloud-init-generator.
    Provisioner(
        "cloud-init",
        units=(
            "cloud-init.target",
            "cloud-init-local.service",
            "cloud-init-main.service",
            "cloud-init-network.service",
            "cloud-init.service",
        ),
        scripts=("cloud-init-local", "cloud-init"),
        off_by_file=("/etc/cloud/cloud-init.disabled", "/run/cloud-init/disabled"),
        off_by_word=("cloud-init=disabled",),
        on_by_file=("/run/cloud-init/enabled",),
    ),
    Provisioner("waagent", units=("walinuxagent.service", "waagent.service"), scripts=("walinuxagent", "waagent")),
    Provisioner("azure-init", units=("azure-init.service",), scripts=("azure-init",)),
    # Of its units, those that write keys and report Ready: systemd/afterburn-*.service.
    Provisioner("afterburn", units=("afterburn-checkin.service", "afterburn-sshkeys@core.service"), scripts=()),
    # It works in the initramfs, at the boot that the command line calls the first: dracut/30ignition.
    Provisioner(
        "ignition",
        units=(),
        scripts=(),
        on_by_word=("ignition.firstboot", "ignition.firstboot=1", "flatcar.first_boot=1"),
    ),
)

# systemd.unit(5), the order of precedence; generators put theirs below /run.
UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator.early",
    "/run/systemd/generator",
    "/run/systemd/generator.late",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
SYSTEMD = "/run/systemd/system"  # sd_booted(3)
OPENRC_RUNLEVELS = "/etc/runlevels"
RUNIT_SERVICES = ("/etc/service", "/var/service", "/service", "/etc/runit/runsvdir/default")
COMMAND_LINE = "/proc/cmdline"


def enabled_provisioners(system: System) -> list[str]:
    """Return the names of the other provisioning agents that this system starts.

    Where systemd does not run, or in a tree, nobody says which init system will start it: then an agent counts that any
    of them starts.
    """
    systemd_runs = system.live and system.exists(SYSTEMD)
    wanted = _wanted_units(system)
    scripts = set() if systemd_runs else _started_scripts(system)
    # systemd makes a unit of a script of sysvinit's unless there is one of that name: systemd-sysv-generator(8).
    sysv_scripts = _started_sysv_scripts(system)
    scripts |= {name for name in sysv_scripts if not (systemd_runs and _has_unit(system, name))}
    words = set(system.read_text(COMMAND_LINE).split()) if system.live else set()

    def starts(agent: Provisioner) -> bool:
        if not words.isdisjoint(agent.off_by_word) or any(map(system.exists, agent.off_by_file)):
            return False
        if not words.isdisjoint(agent.on_by_word) or any(map(system.exists, agent.on_by_file)):
            return True
        units = (unit for unit in agent.units if unit in wanted)
        return any(not _is_masked(system, unit) for unit in units) or not scripts.isdisjoint(agent.scripts)

    return [agent.name for agent in PROVISIONERS if starts(agent)]


def _wanted_units(system: System) -> set[str]:
    """Return the units that are wanted or required by another: enabled, by whoever and at whatever time."""
    found: set[str] = set()
    for directory in UNIT_DIRECTORIES:
        if directory.startswith("/lib/") and os.path.islink(system.path("/lib")):
            continue  # it is the one in /usr
        for name in _names(system, directory):
            if name.endswith((".wants", ".requires")):
                found.update(_names(system, f"{directory}/{name}"))
    return found


def _is_masked(system: System, unit: str) -> bool:
    for directory in UNIT_DIRECTORIES:
        path = system.path(f"{directory}/{unit}")
        with suppress(OSError):
            found = os.stat(path)
            return os.path.realpath(path) == "/dev/null" or found.st_size == 0
    return False


def _has_unit(system: System, name: str) -> bool:
    return any(os.path.lexists(system.path(f"{directory}/{name}.service")) for directory in UNIT_DIRECTORIES)


def _started_scripts(system: System) -> set[str]:
    """Return what OpenRC's runlevels and runit start."""
    found = {name for directory in RUNIT_SERVICES for name in _names(system, directory)}
    for runlevel in _names(system, OPENRC_RUNLEVELS):
        found.update(_names(system, f"{OPENRC_RUNLEVELS}/{runlevel}"))
    return found


def _started_sysv_scripts(system: System) -> set[str]:
    """Return what sysvinit starts: by Debian's directories, or by those of others."""
    links = (
        name for etc in ("/etc", "/etc/rc.d") for level in "S2345" for name in _names(system, f"{etc}/rc{level}.d")
    )
    return {name[3:] for name in links if re.match(r"S[0-9]{2}", name)}


def _names(system: System, directory: str) -> Collection[str]:
    try:
        return os.listdir(system.path(directory))
    except (OSError, ProvisioningError):  # it is no directory, or a loop of links
        return ()
