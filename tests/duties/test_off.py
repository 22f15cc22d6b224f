"""A duty that is off costs a first boot nothing: no step, no request, no module; its own program loads little.

The requests are held by the scenario `duty-off`, which is that of a run without any configuration.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from minprov.config import DUTIES, HOOKS_DUTY, OnPool, Options, load
from minprov.emulator.ovf_env import build_ovf_env
from minprov.emulator.vm import SAMPLE_VM
from minprov.model import Evidence, Secret
from minprov.ovf import parse_ovf_env
from minprov.plan import plan_provisioning

HEAVY = {"asyncio", "aiohttp", "ctypes", "minprov.provision"}


def duties_in(modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith(("minprov.duties", "minprov.image"))}


def modules_of(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


STEPS = [
    *("set-hostname", "publish-hostname", "ensure-user", "ensure-host-keys", "set-password"),
    *("write-authorized-keys", "configure-sshd", "grant-sudo", "write-custom-data", "write-user-data"),
    "store-ovf-env",
]


def steps_of(options: Options) -> list[str]:
    evidence = Evidence(ovf=parse_ovf_env(build_ovf_env(SAMPLE_VM)), password_hash=Secret("$6$"), redacted_ovf_env=b"")
    return [step.name for step in plan_provisioning(evidence, options).steps]


def test_a_first_boot_has_no_step_more() -> None:
    assert steps_of(Options()) == STEPS


@pytest.mark.parametrize("table", DUTIES)
@pytest.mark.parametrize("policy", ["off", "best-effort"])
def test_a_table_that_is_not_required_adds_no_step(table: str, policy: str, tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.write_text(f'[{table}]\npolicy = "{policy}"\n')
    options = load(str(config))
    assert options._replace(duties=()) == Options()
    assert [duty.table for duty in options.duties] == ([] if policy == "off" else [table])
    assert steps_of(options) == STEPS


def test_a_first_boot_loads_no_duty() -> None:
    loaded = modules_of("import minprov.commands.run, minprov.provision")
    assert not duties_in(loaded)
    assert "ctypes" not in loaded


@pytest.mark.parametrize("table", [None, *DUTIES])
def test_a_run_loads_of_a_duty_that_is_off_its_settings_alone(table: str | None, tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.write_text(f'[{table}]\npolicy = "off"\n' if table else "")
    arguments = ["--dry-run", "--emulated", "--json", "--config", str(config)]
    loaded = modules_of(f"from minprov.cli import run\nassert run({arguments}) == 0\nprint()")
    assert "minprov.provision" in loaded
    duty = f"minprov.duties.{DUTIES[table]}" if table else None
    assert duties_in(loaded) == ({"minprov.duties", duty, f"{duty}.settings"} if duty else set())


@pytest.mark.parametrize("choice", ["refuse", "wait"])
def test_an_ordinary_vm_does_nothing_more_for_being_allowed_to_wait_in_a_pool(choice: str, tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.write_text(f'preprovisioning = "{choice}"\n')
    options = load(str(config))
    assert options._replace(preprovisioning=OnPool.REFUSE) == Options()
    assert steps_of(options) == STEPS
    arguments = ["--dry-run", "--emulated", "--json", "--config", str(config)]
    loaded = modules_of(f"from minprov.cli import run\nassert run({arguments}) == 0\nprint()")
    duty = "minprov.duties.wait_in_pool"
    assert duties_in(loaded) == {"minprov.duties", duty, f"{duty}.settings"}


def test_hooks_without_a_directory_cost_a_first_boot_their_settings_alone(tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.write_text("[hooks]\ntime-limit = 5.0\n")
    options = load(str(config))
    assert options == Options()
    assert steps_of(options) == STEPS
    loaded = modules_of(f"from minprov.cli import run\nrun(['--dry-run', '--emulated', '--config={config}'])\nprint()")
    duty = "minprov.duties.hooks"
    assert duties_in(loaded) == {"minprov.duties", duty, f"{duty}.settings"}
    assert "minprov.properties.hooks" not in loaded


@pytest.mark.parametrize("command", sorted({*DUTIES.values(), HOOKS_DUTY}))
def test_the_program_of_a_duty_that_is_off_loads_little(command: str, tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.touch()
    arguments = ["--config", str(config), *(["before-ready"] if command == HOOKS_DUTY else [])]
    loaded = modules_of(f"from minprov.commands import {command}\n{command}.run({arguments})")
    assert not loaded & HEAVY
