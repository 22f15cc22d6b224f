"""What earlier runs left: two facts for each VM id, and the last report.

    DIR/applied/<uuid>     every required property was applied and read back
    DIR/ready/<uuid>       the platform accepted the Ready report, and nothing is left to do
    DIR/report.json        the last run's report

A fact is an empty file, so it is there or it is not. It is named by the machine's UUID, so that a captured or cloned
image, whose VM has another one, provisions again. Imports nothing but `os`, as `identity` does and for its reason.
"""

from __future__ import annotations

import os

from minprov.machine.identity import swap_byte_order

DEFAULT_DIRECTORY = "/var/lib/minprov"
APPLIED, READY = "applied", "ready"
REPORT = "report.json"


def holds(directory: str, fact: str, uuid: str) -> bool:
    """Tell whether the fact was recorded for this VM, in either byte order: a kernel update may change the one shown.

    Generation 1 VMs have shown both, see https://bugs.launchpad.net/cloud-init/+bug/1835584.
    """
    return any(os.path.exists(f"{directory}/{fact}/{name}") for name in (uuid, swap_byte_order(uuid)))


def is_empty(directory: str) -> bool:
    """Tell whether no VM at all was ever provisioned from this image."""
    return not os.path.exists(f"{directory}/{APPLIED}")


def record(directory: str, fact: str, uuid: str) -> None:
    """Record the fact durably; raises OSError."""
    parent = f"{directory}/{fact}"
    os.makedirs(parent, 0o700, exist_ok=True)
    descriptor = os.open(f"{parent}/{uuid}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fsync(descriptor)
    os.close(descriptor)
    for path in (parent, directory):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(descriptor)
        os.close(descriptor)
