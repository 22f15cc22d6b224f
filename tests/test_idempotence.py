"""What a later boot does, by what the kernel saw of it: nothing. The cases named again-* have the other promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from minprov.machine.identity import AZURE_CHASSIS_ASSET_TAG

VM_ID = "7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14"
CHANGES = re.compile(
    r"^\d+ (socket|connect|v?fork|clone3?|execve|rename|mkdir|rmdir|(un|sym)?link|f?chmod|l?f?chown|sethostname|fsync)"
    r"|O_WRONLY|O_RDWR|O_CREAT"
)


def later_boot(trace: Path) -> tuple[int, list[str]]:
    """Run the bare command on a VM that is provisioned, where no interface is up; return what it called."""
    script = f"""
    mount -t tmpfs tmpfs /sys/class && mkdir -p /sys/class/dmi/id
    echo {AZURE_CHASSIS_ASSET_TAG} >/sys/class/dmi/id/chassis_asset_tag
    echo {VM_ID} >/sys/class/dmi/id/product_uuid
    mount -t tmpfs tmpfs /var/lib && mkdir -p /var/lib/minprov/ready
    touch /var/lib/minprov/ready/{VM_ID}
    exec strace --follow-forks --output={trace} --trace=%network,%file,%process,%desc,sethostname "$0" -m minprov
    """
    isolated = ["unshare", "--net", "--mount", "--propagation", "private"]
    command = [*isolated, "sh", "-euc", script, sys.executable]
    status = subprocess.run(command, check=False, capture_output=True).returncode
    return status, trace.read_text().splitlines()


@pytest.mark.root
def test_a_later_boot_makes_no_socket_changes_nothing_and_starts_nothing(tmp_path: Path) -> None:
    status, calls = later_boot(tmp_path / "trace")
    assert status == 0
    assert any(VM_ID in call for call in calls)
    start, *others = calls
    assert "execve" in start
    assert [call for call in others if CHANGES.search(call)] == []
