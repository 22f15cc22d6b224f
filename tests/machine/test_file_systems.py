"""What file systems do with setuid bits, for a program and for whoever logs in, in real mount namespaces."""

from __future__ import annotations

import subprocess
import sys

import pytest

REMOUNT = "mount --bind /usr /usr && mount -o remount,bind,nosuid /usr"
LOOK = (
    "import os\nfrom minprov.machine.file_systems import is_nosuid\nprint(is_nosuid(os.path.realpath('/usr/bin/env')))"
)


def first_process(script: str) -> str:
    """Return what a shell prints that is the first process of its own namespaces."""
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-ec", script, sys.executable, LOOK]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.root
def test_what_is_mounted_nosuid_for_the_first_process_is_so_for_everybody() -> None:
    assert first_process(f'{REMOUNT}; "$0" -c "$1"; true') == "True"


@pytest.mark.root
def test_what_is_mounted_nosuid_for_a_unit_alone_is_not() -> None:
    """systemd does so with NoNewPrivileges=."""
    inner = f'{REMOUNT}; exec "$0" -c "$1"'
    assert first_process(f'unshare --mount sh -ec \'{inner}\' "$0" "$1"; true') == "False"
