"""A duty that is off costs a first boot nothing: no step, no module; and its own program ends before it loads much."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from minprov.config import DUTIES, Options
from minprov.emulator.ovf_env import build_ovf_env
from minprov.emulator.vm import SAMPLE_VM
from minprov.model import Evidence, Secret
from minprov.ovf import parse_ovf_env
from minprov.plan import plan_provisioning

HEAVY = {"asyncio", "aiohttp", "ctypes", "minprov.provision"}


def modules_of(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_a_first_boot_has_no_step_more() -> None:
    evidence = Evidence(ovf=parse_ovf_env(build_ovf_env(SAMPLE_VM)), password_hash=Secret("$6$"), redacted_ovf_env=b"")
    assert [step.name for step in plan_provisioning(evidence, Options()).steps] == [
        *("set-hostname", "publish-hostname", "ensure-user", "ensure-host-keys", "set-password"),
        *("write-authorized-keys", "configure-sshd", "grant-sudo", "write-custom-data", "write-user-data"),
        "store-ovf-env",
    ]


def test_a_first_boot_loads_no_duty() -> None:
    loaded = modules_of("import minprov.commands.run, minprov.provision")
    assert not [name for name in loaded if name.startswith(("minprov.duties", "minprov.image"))]
    assert "ctypes" not in loaded


@pytest.mark.parametrize("command", sorted(set(DUTIES.values())))
def test_the_program_of_a_duty_that_is_off_loads_little(command: str, tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.touch()
    loaded = modules_of(f"from minprov.commands import {command}\n{command}.run(['--config', {str(config)!r}])")
    assert not loaded & HEAVY
