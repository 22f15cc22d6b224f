"""The files that leave the VF of accelerated networking alone, each in the language of its reader."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from minprov.image.fixes.files import VF_FILES
from minprov.machine.interfaces import VF_DRIVERS

FILES = Path(__file__).parents[1] / "units/network"
SHOWN = VF_DRIVERS | {"mlx4_en"}

NETWORKD = "/lib/systemd/systemd-networkd"
# A veth pair is the VF; beside it stands another NIC. With a sysfs that cannot be written to, udev is not waited for.
NAMESPACE = f"""
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
mount -t tmpfs none /etc/systemd/network
mount -t sysfs -o ro none /sys
sed 's/^Driver=.*/Driver=veth/' '{FILES}/01-minprov-vf.network' >/run/systemd/network/01-minprov-vf.network
printf '[Match]\\nType=ether\\n[Network]\\nDHCP=ipv4\\n' >/run/systemd/network/50-dhcp.network
chmod -R a+rwX /run/systemd
ip tuntap add nic0 mode tap
ip link add vf0 type veth peer name other
ip link set nic0 up
ip link set vf0 up
exec env SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console {NETWORKD} 2>&1
"""


def parsed(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters="=", interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((FILES / name).read_text())
    return parser


def test_the_fix_writes_these_files() -> None:
    for path, contents in VF_FILES.values():
        assert (FILES / Path(path).name).read_text() == contents


def test_networkd_manages_no_vf() -> None:
    network = parsed("01-minprov-vf.network")
    assert set(network["Match"]["Driver"].split()) == SHOWN
    assert network["Link"]["Unmanaged"] == "yes"


@pytest.mark.root
@pytest.mark.skipif(not Path(NETWORKD).exists(), reason="no networkd here")
def test_networkd_itself_leaves_the_vf_and_takes_the_other_nic() -> None:
    command = ["unshare", "--net", "--mount", "sh", "-c", NAMESPACE]
    said, wanted = [], {"vf0: unmanaged", "nic0: configuring"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as networkd:
        assert networkd.stdout
        for line in networkd.stdout:
            said.append(line)
            if change := re.match(r"(vf0|nic0): State changed: .* -> (unmanaged|configuring)", line):
                wanted.discard(f"{change[1]}: {change[2]}")
            if not wanted:
                break
        networkd.terminate()
    assert not wanted, "".join(said)


def test_network_manager_manages_no_vf_and_keeps_what_others_say() -> None:
    devices = parsed("68-minprov-vf.conf")["keyfile"]["unmanaged-devices+"]
    assert {device.removeprefix("driver:") for device in devices.split(";")} == SHOWN


def test_udev_marks_the_vf_by_its_driver_at_every_event_but_the_last() -> None:
    (rule,) = [line for line in (FILES / "68-minprov-vf.rules").read_text().splitlines() if not line.startswith("#")]
    keys = dict(re.findall(r'([A-Z{}_a-z]+)(?:==|!=|=)"([^"]*)"', rule))
    assert set(keys["DRIVERS"].split("|")) == VF_DRIVERS
    assert (keys["ACTION"], keys["ENV{NM_UNMANAGED}"]) == ("remove", "1")
    assert keys["ENV{ID_NET_MANAGED_BY}"] == "unmanaged"
