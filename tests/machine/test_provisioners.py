"""Which other provisioning agents a system starts, however it starts them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minprov.machine.provisioners import PROVISIONERS, enabled_provisioners
from minprov.machine.system import System

WANTS = "multi-user.target.wants"
UNIT = "[Service]\nExecStart=/bin/true\n"


def link(tree: Path, path: str, target: str) -> None:
    place = tree / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def write(tree: Path, path: str, text: str = "") -> None:
    place = tree / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def found(tree: Path) -> list[str]:
    return enabled_provisioners(System(str(tree)))


@pytest.mark.parametrize("agent", [agent for agent in PROVISIONERS if agent.units], ids=lambda agent: agent.name)
@pytest.mark.parametrize(
    "directory",
    [
        f"/etc/systemd/system/{WANTS}",
        "/etc/systemd/system/cloud-config.target.requires",
        f"/run/systemd/generator.early/{WANTS}",
        f"/usr/lib/systemd/system/{WANTS}",
        f"/usr/local/lib/systemd/system/{WANTS}",
    ],
)
def test_a_unit_that_another_wants_is_started(tmp_path: Path, agent: object, directory: str) -> None:
    assert isinstance(agent, type(PROVISIONERS[0]))
    for unit in agent.units:
        write(tmp_path, f"/usr/lib/systemd/system/{unit}", UNIT)
    assert found(tmp_path) == []
    link(tmp_path, f"{directory}/{agent.units[-1]}", f"/usr/lib/systemd/system/{agent.units[-1]}")
    assert found(tmp_path) == [agent.name]


@pytest.mark.parametrize("mask", ["/dev/null", ""])
def test_a_masked_unit_is_not_started(tmp_path: Path, mask: str) -> None:
    write(tmp_path, "/usr/lib/systemd/system/waagent.service", UNIT)
    link(tmp_path, f"/usr/lib/systemd/system/{WANTS}/waagent.service", "../waagent.service")
    assert found(tmp_path) == ["waagent"]
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/null").touch()
    if mask:
        link(tmp_path, "/etc/systemd/system/waagent.service", mask)
    else:
        write(tmp_path, "/etc/systemd/system/waagent.service")
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "agent"),
    [
        ("/etc/runlevels/default/waagent", "waagent"),
        ("/etc/runlevels/boot/cloud-init-local", "cloud-init"),
        ("/etc/rc2.d/S01waagent", "waagent"),
        ("/etc/rc.d/rc3.d/S99waagent", "waagent"),
        ("/etc/rcS.d/S05cloud-init-local", "cloud-init"),
        ("/etc/service/waagent", "waagent"),
        ("/etc/runit/runsvdir/default/cloud-init", "cloud-init"),
    ],
)
def test_a_script_of_another_init_system_is_started(tmp_path: Path, path: str, agent: str) -> None:
    link(tmp_path, path, "/etc/init.d/script")
    assert found(tmp_path) == [agent]


@pytest.mark.parametrize("path", ["/etc/rc2.d/K01waagent", "/etc/rc6.d/S01waagent", "/etc/init.d/waagent"])
def test_a_script_that_no_runlevel_starts_is_not(tmp_path: Path, path: str) -> None:
    write(tmp_path, path)
    assert found(tmp_path) == []


def test_cloud_init_may_be_off_although_it_is_enabled(tmp_path: Path) -> None:
    link(tmp_path, "/etc/systemd/system/cloud-init.target.wants/cloud-init.service", "/x")
    assert found(tmp_path) == ["cloud-init"]
    write(tmp_path, "/etc/cloud/cloud-init.disabled")
    assert found(tmp_path) == []


def test_a_tree_without_agents_or_with_unreadable_directories_has_none(tmp_path: Path) -> None:
    assert found(tmp_path) == []
    write(tmp_path, "/etc/systemd/system")
    link(tmp_path, "/etc/runlevels", "runlevels")
    os.mkfifo(tmp_path / "etc/rc2.d")
    assert found(tmp_path) == []
