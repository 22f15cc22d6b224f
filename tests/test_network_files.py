"""The files that leave the VF of accelerated networking alone, each in the language of its reader."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from minprov.image.fixes.files import VF_FILES
from minprov.machine.interfaces import VF_DRIVERS

FILES = Path(__file__).parents[1] / "units/network"
SHOWN = VF_DRIVERS | {"mlx4_en"}


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


def test_network_manager_manages_no_vf_and_keeps_what_others_say() -> None:
    devices = parsed("68-minprov-vf.conf")["keyfile"]["unmanaged-devices+"]
    assert {device.removeprefix("driver:") for device in devices.split(";")} == SHOWN


def test_udev_marks_the_vf_by_its_driver_at_every_event_but_the_last() -> None:
    (rule,) = [line for line in (FILES / "68-minprov-vf.rules").read_text().splitlines() if not line.startswith("#")]
    keys = dict(re.findall(r'([A-Z{}_a-z]+)(?:==|!=|=)"([^"]*)"', rule))
    assert set(keys["DRIVERS"].split("|")) == VF_DRIVERS
    assert (keys["ACTION"], keys["ENV{NM_UNMANAGED}"]) == ("remove", "1")
    assert keys["ENV{ID_NET_MANAGED_BY}"] == "unmanaged"
