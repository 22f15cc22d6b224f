"""A program of the system that is checked, run where that was asked for: it may judge what no list of ours can.

A tree's is run in its own root directory and in name spaces of its own: it sees no network, no other process, and of
devices /dev/null alone. What stands in for its /dev goes with it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.limits import SYSTEM_PROGRAM_LIMIT
from minprov.machine.tools import PATH

if TYPE_CHECKING:
    from minprov.image.tree import Tree

MAX_WORDS = 1 << 16
NAME_SPACES = ("--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child")
_IN_ROOT = """
mount -t tmpfs -o mode=0755 dev "$0/dev" && mknod -m 0666 "$0/dev/null" c 1 3 && exec chroot "$0" "$@"
"""


def errors_of(tree: Tree, program: str, *options: str) -> str:
    """Return what a program of the tree writes to stderr, or why it cannot be run.

    Raises:
        ProvisioningError: NOT_PERMITTED without root; IMAGE_UNREADABLE if nothing can be run so, or it does not end.

    """
    if os.geteuid() != 0:
        raise ProvisioningError(Reason.NOT_PERMITTED, path=program, detail="it is run by root alone")
    argv = [program, *options]
    if not tree.live:
        argv = ["unshare", *NAME_SPACES, "--", "sh", "-c", _IN_ROOT, tree.root, *argv]
    with tempfile.TemporaryFile() as errors:
        try:
            subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={"PATH": PATH, "LANG": "C.UTF-8"},
                timeout=SYSTEM_PROGRAM_LIMIT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProvisioningError(Reason.IMAGE_UNREADABLE, path=program, detail=str(error)) from error
        errors.seek(0)
        return errors.read(MAX_WORDS).decode(errors="replace").strip()
