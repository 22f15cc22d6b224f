"""NICs of recorded sysfs trees: a VF that is configured, a name for a NIC that is not there, two ways out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minprov.machine.interfaces import find_faults, find_lone_vf, ipv4_address

HEADING = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
NETVSC, VF = "00:0d:3a:01:02:03", "00:0d:3a:01:02:03"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, driver, address in (("eth0", "hv_netvsc", NETVSC), ("enP1s1", "mana", VF), ("lo", None, "00:00")):
        directory = tmp_path / "sys/class/net" / name
        directory.mkdir(parents=True)
        (directory / "address").write_text(f"{address}\n")
        if driver:
            (directory / "device").mkdir()
            (directory / "device/driver").symlink_to(f"../../bus/drivers/{driver}")
    (tmp_path / "etc/udev/rules.d").mkdir(parents=True)
    (tmp_path / "etc/systemd/network").mkdir(parents=True)
    (tmp_path / "route").write_text(HEADING)
    return tmp_path


def faults(root: Path, **addresses: str) -> list[str]:
    return list(find_faults(str(root), str(root / "route"), addresses.get))


def test_a_nic_of_its_own_is_no_vf(root: Path) -> None:
    assert find_lone_vf(str(root)) is None
    (root / "sys/class/net/enP1s1/address").write_text("00:0d:3a:ff:ff:ff\n")
    assert find_lone_vf(str(root)) == "enP1s1"
    assert faults(root, eth0="10.0.0.4", enP1s1="10.0.0.5") == []


def test_a_vf_that_nobody_configured_is_no_fault(root: Path) -> None:
    assert faults(root, eth0="10.0.0.4") == []


@pytest.mark.parametrize("driver", ["mana", "mlx4_core", "mlx5_core"])
def test_a_vf_with_an_address_of_its_own_is_told(root: Path, driver: str) -> None:
    link = root / "sys/class/net/enP1s1/device/driver"
    link.unlink()
    link.symlink_to(f"../../bus/drivers/{driver}")
    (fault,) = faults(root, eth0="10.0.0.4", enP1s1="10.0.0.5")
    assert fault.startswith(f"enP1s1 is a VF of accelerated networking ({driver}) and has the address 10.0.0.5")


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("udev/rules.d/70-persistent-net.rules", 'ATTR{address}=="00:15:5d:00:00:01", NAME="eth0"', True),
        ("udev/rules.d/70-persistent-net.rules", f'ATTR{{address}}=="{NETVSC}", NAME="eth0"', False),
        ("systemd/network/10-a.link", "[Match]\nMACAddress=00-15-5D-00-00-01\n", True),
        ("systemd/network/10-a.link", f"[Match]\nPermanentMACAddress=00:15:5d:00:00:01 {NETVSC.upper()}\n", False),
        ("systemd/network/10-a.link", "[Match]\nOriginalName=*\n", False),
        ("NetworkManager/system-connections/a.nmconnection", "[ethernet]\nmac-address=00:15:5D:00:00:01\n", True),
        ("NetworkManager/system-connections/a", f"[ethernet]\nmac-address={NETVSC.upper()}\n", False),
        ("NetworkManager/system-connections/a", "[ethernet]\ncloned-mac-address=00:15:5D:00:00:01\n", False),
        ("sysconfig/network-scripts/ifcfg-eth0", 'DEVICE=eth0\nHWADDR="00:15:5D:00:00:01"\n', True),
        ("sysconfig/network-scripts/ifcfg-eth0", f"HWADDR={NETVSC}\n", False),
        ("sysconfig/network-scripts/ifup-eth", "HWADDR=00:15:5D:00:00:01\n", False),
    ],
)
def test_a_name_for_a_nic_that_is_not_there_is_told(root: Path, file: str, text: str, told: bool) -> None:
    (root / "etc" / file).parent.mkdir(parents=True, exist_ok=True)
    (root / "etc" / file).write_text(text)
    found = faults(root)
    assert bool(found) is told
    assert not told or "that none has: 00:15:5d:00:00:01" in found[0]


def test_a_fifo_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "etc/systemd/network/10-a.link")
    assert faults(root) == []


@pytest.mark.parametrize("platform", ["eth0", "eth1"])
def test_the_platform_by_another_nic_is_told(root: Path, platform: str) -> None:
    (root / "route").write_text(f"{HEADING}eth0 00000000 0 0 0\n{platform} 10813FA8 0 0 0\n")
    told = [] if platform == "eth0" else ["the default route is by eth0, the platform by eth1"]
    assert faults(root) == told


def test_nothing_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    assert list(find_faults(str(tmp_path), str(tmp_path / "route"))) == []


def test_an_address_is_the_kernels() -> None:
    assert ipv4_address("lo") in ("127.0.0.1", None)
    assert ipv4_address("none-such") is None
