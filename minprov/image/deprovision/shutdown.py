"""Find what the system would write at its shutdown, when all that is to go has gone, and keep it from the disk.

ifdown starts ``dhclient -r``, which makes a client id where it finds none and keeps it for the next boot; systemd and
init scripts save a random seed. All VMs of the image would have the same. journald logs the shutdown below the
machine id's name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.machine.processes import find_processes
from minprov.machine.provisioners import SYSTEMD
from minprov.machine.tools import run_tool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.tree import Tree
    from minprov.machine.system import System

SEED = "systemd-random-seed.service"
JOURNAL, JOURNALD = "/var/log/journal", "/run/systemd/journal/io.systemd.journal"
# journald goes on in memory: journalctl(1).
STOPS = {SEED: ["systemctl", "stop", SEED], JOURNAL: ["journalctl", "--relinquish-var"]}
SEEDS = ("/var/lib/urandom", "/var/lib/seedrng")  # of init scripts
LEASES = ("/var/lib/dhcp", "/var/lib/dhclient")  # dhclient's, in Debian and in Fedora


def is_to_be_shut_down() -> bool:
    """Tell a machine from a chroot, whose files are another system's."""
    try:
        return os.path.samefile("/proc/1/root", "/")
    except OSError:
        return False


def find_services(tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield what systemd can stop at once, since nothing needs it any more."""
    if os.path.isdir(SYSTEMD):
        yield "random-seed", SEED
        if os.path.exists(JOURNALD) and tree.is_directory(JOURNAL):
            yield "logs", JOURNAL


def find_directories(tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield the directories that something else writes to, and what it is."""
    if not os.path.isdir(SYSTEMD):
        yield from (("random-seed", path) for path in SEEDS if _is_on_disk(tree, path))
    if any(True for _ in find_processes({"dhclient": 0})):
        yield from (("dhcp-leases", path) for path in LEASES if _is_on_disk(tree, path))


def _is_on_disk(tree: Tree, path: str) -> bool:
    return tree.is_directory(path) and not os.path.ismount(path)


async def stop(target: str) -> None:
    """Have one of them write no more."""
    await run_tool(STOPS[target])


async def cover(system: System, path: str) -> None:
    """Mount an empty directory over one of the disk's, which goes with the memory that it is in."""
    mount = system.own_tool("mount", "busybox mount") or ["mount"]
    await run_tool([*mount, "-t", "tmpfs", "-o", "mode=0755,size=1m", "tmpfs", path])
    if not os.path.ismount(path):  # noqa: ASYNC240  # nothing else is to be done meanwhile
        raise ProvisioningError(Reason.READ_BACK, detail=f"nothing is mounted on {path}")
