"""What systemd itself says about the unit. That it works with this sandbox, the VM tests show."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[1] / "units/minprov.service"
EXPOSURE = 3.3
"""What is left open of 10: root, the network, the drives, hostname and mounts are what provisioning is about."""

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Make a tree with the unit in it and what the unit starts."""
    for program in ("usr/bin/minprov", "bin/sh"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).touch(mode=0o755)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    shutil.copy(UNIT, tmp_path / "etc/systemd/system")
    return tmp_path


def analyze(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments, f"--root={root}", UNIT.name], capture_output=True, text=True, check=False
    )


def test_systemd_finds_no_fault_with_the_unit(image: Path) -> None:
    done = analyze("verify", "--man=no", root=image)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_sandbox_leaves_no_more_open_than_it_did(image: Path) -> None:
    done = analyze("security", "--offline=yes", f"--threshold={round(EXPOSURE * 10)}", "--json=short", root=image)
    assert done.returncode == 0, "\n".join(
        f"{item['exposure']} {item['name']}: {item['description']}"
        for item in json.loads(done.stdout)
        if item["exposure"]
    )
