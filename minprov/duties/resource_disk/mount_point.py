"""Where the disk is mounted: a directory that hides nothing, and a mount that the whole system sees.

With systemd its process 1 mounts, as a transient unit: the caller is in a sandbox, a mount of its own would not be seen
by others. There is no entry in fstab, which would have a later boot wait for a disk that is not there any more.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.limits import MOUNT_LIMIT
from minprov.machine.tools import find_tool, run_tool

if TYPE_CHECKING:
    from minprov.duties.resource_disk.discovery import Node
    from minprov.duties.resource_disk.settings import Options
    from minprov.duties.resource_disk.usage import Usage

SYSTEMD = "/run/systemd/system"  # sd_booted(3)
# Directories that the system itself uses, and those with nothing but the system's own below them.
SYSTEM_DIRECTORIES = {"/", "/home", "/media", "/opt", "/root", "/run", "/srv", "/var", "/var/lib", "/var/log"}
SYSTEM_TREES = {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "tmp", "usr"}


def check_mount_point(path: str, usage: Usage) -> None:
    """Raise RESOURCE_DISK_NOT_USABLE unless mounting here hides nothing that anybody uses."""
    detail = None
    if path != os.path.normpath(path) or path.startswith("//"):
        detail = "write the path without . and .. and without a slash at its end"
    elif path in SYSTEM_DIRECTORIES or path.split("/")[1] in SYSTEM_TREES:
        detail = "a directory of the system"
    elif os.path.realpath(path) != path:
        detail = "a link leads to it"
    elif usage.at(path):
        detail = "something else is mounted there"
    elif os.path.lexists(path):
        detail = _check_empty(path)
    if detail:
        raise ProvisioningError(Reason.RESOURCE_DISK_NOT_USABLE, path=path, detail=detail)


def _check_empty(path: str) -> str | None:
    try:
        return "the directory is not empty" if os.listdir(path) else None
    except OSError as error:
        return error.strerror


def outside_of_the_sandbox(argv: list[str]) -> list[str]:
    """Return the command line that has systemd run a tool in the system's own mount namespace, where there is systemd.

    The kernel names a swap file by the mount through which it was turned on, which has to be one that others see.
    """
    starter = find_tool("systemd-run") if _is_run_by_systemd() else None
    return [starter, "--quiet", "--pipe", "--wait", "--collect", *argv] if starter else argv


def _is_run_by_systemd() -> bool:
    return os.path.isdir(SYSTEMD)


async def mount(node: Node, options: Options) -> None:
    """Mount the node's file system at the mount point."""
    kind = options.file_system.value
    settings = [f"--type={kind}", f"--options={options.mount_options}"]
    by_systemd = find_tool("systemd-mount") if _is_run_by_systemd() else None
    try:
        if by_systemd:
            # It makes the directory too. Collected, a mount that failed does not stand in the way of the next try.
            argv = [by_systemd, "--quiet", "--no-ask-password", "--collect", *settings]
        else:
            os.makedirs(options.mount_point, 0o755, exist_ok=True)
            argv = ["mount", "-t", kind, "-o", options.mount_options]
        await run_tool([*argv, node.path, options.mount_point], limit=MOUNT_LIMIT)
    except ProvisioningError as error:
        raise ProvisioningError(Reason.RESOURCE_DISK_NOT_USABLE, disk=node.name, **error.data) from error
    except OSError as error:
        raise ProvisioningError(
            Reason.RESOURCE_DISK_NOT_USABLE, path=options.mount_point, detail=error.strerror
        ) from error
