"""What systemd itself says about the unit. That it works with this sandbox, the VM tests show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[1] / "units"
EXPOSURE = {
    "minprov.service": 3.6,
    "minprov-custom-data.service": 9.6,
    "minprov-certificates.service": 2.9,
    "minprov-entropy.service": 2.0,
    "minprov-follow-up.service": 2.5,
    "minprov-resource-disk.service": 2.9,
}
"""What is left open of 10: root, the network, the drives, hostname and mounts are what provisioning is about."""

TARGET = "minprov-ready.target"

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Make a tree with the unit in it and what the unit starts."""
    for program in ("usr/bin/minprov", "bin/sh"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).touch(mode=0o755)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    for unit in (*EXPOSURE, TARGET):
        shutil.copy(UNITS / unit, tmp_path / "etc/systemd/system")
    for target in ("basic", "shutdown", "sysinit"):
        (tmp_path / f"etc/systemd/system/{target}.target").write_text("[Unit]\n")
    return tmp_path


def analyze(unit: str, *arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments, f"--root={root}", unit], capture_output=True, text=True, check=False
    )


def test_there_is_a_measure_for_each_unit() -> None:
    assert EXPOSURE.keys() == {path.name for path in UNITS.glob("*.service")}


@pytest.mark.parametrize("unit", [*EXPOSURE, TARGET])
def test_systemd_finds_no_fault_with_the_unit(unit: str, image: Path) -> None:
    done = analyze(unit, "verify", "--man=no", root=image)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", EXPOSURE)
def test_the_sandbox_leaves_no_more_open_than_it_did(unit: str, image: Path) -> None:
    done = analyze(
        unit, "security", "--offline=yes", f"--threshold={round(EXPOSURE[unit] * 10)}", "--json=short", root=image
    )
    assert done.returncode == 0, "\n".join(
        f"{item['exposure']} {item['name']}: {item['description']}"
        for item in json.loads(done.stdout)
        if item["exposure"]
    )


@pytest.mark.parametrize(
    ("table", "mixed"),
    [
        (b"OEM0" + bytes(12) + b"MICROSFT" + bytes(12) + b"\x07" * 64, b"\x07" * 64),
        (b"OEM0" + bytes(12) + b"MICROSFT" + bytes(12), b""),
        (b"OEM0" + bytes(12) + b"SOMEBODY" + bytes(12) + b"\x07" * 64, None),
    ],
    ids=["of this boot", "taken by the kernel", "somebody else's"],
)
def test_entropy_is_the_hosts_and_without_the_header(table: bytes, mixed: bytes | None, tmp_path: Path) -> None:
    (line,) = re.findall(
        r"^ExecStart=/bin/sh -c '(.*)'$", (UNITS / "minprov-entropy.service").read_text(), re.MULTILINE
    )
    (tmp_path / "OEM0").write_bytes(table)
    here = line.replace("$$", "$").replace("/sys/firmware/acpi/tables", str(tmp_path))
    done = subprocess.run(["sh", "-c", here.replace("/dev/urandom", str(tmp_path / "pool"))], check=False)
    assert (done.returncode == 0) == (mixed is not None)
    assert mixed is None or (tmp_path / "pool").read_bytes() == mixed


def test_the_target_is_not_reached_without_the_run() -> None:
    target = (UNITS / TARGET).read_text().splitlines()
    assert {"Requires=minprov.service", "After=minprov.service"} <= set(target)


def test_no_further_run_starts_while_a_process_of_the_one_before_is_left() -> None:
    # systemd.kill(5): by default all processes of the control group have to end. The last resort may have to tell.
    assert not re.search(
        r"^(KillMode|SendSIGKILL|TimeoutStopSec)=", (UNITS / "minprov.service").read_text(), re.MULTILINE
    )
