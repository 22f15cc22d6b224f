"""Which VM this is, and what earlier runs on it left."""

from __future__ import annotations

from pathlib import Path

import pytest

from minprov.machine.identity import AZURE_CHASSIS_ASSET_TAG, read_identity, swap_byte_order
from minprov.machine.markers import APPLIED, READY, holds, record

SHOWN = "e4a1ba0c-5c31-8b4c-9d1c-3a8f1b2c4d5e"
SWAPPED = "0cbaa1e4-315c-4c8b-9d1c-3a8f1b2c4d5e"


def sysfs(tmp_path: Path, *, uuid: str | None, efi: bool, tag: str = AZURE_CHASSIS_ASSET_TAG) -> str:
    dmi = tmp_path / "class/dmi/id"
    dmi.mkdir(parents=True)
    (dmi / "chassis_asset_tag").write_text(f"{tag}\n")
    if uuid is not None:
        (dmi / "product_uuid").write_text(f"{uuid}\n")
    if efi:
        (tmp_path / "firmware/efi").mkdir(parents=True)
    return str(tmp_path)


def test_a_generation_1_vm_has_the_first_three_fields_in_the_other_byte_order(tmp_path: Path) -> None:
    identity = read_identity(sysfs(tmp_path, uuid=SHOWN.upper(), efi=False))
    assert (identity.dmi_uuid, identity.vm_id) == (SHOWN, SWAPPED)


def test_a_generation_2_vm_shows_its_id_as_it_is(tmp_path: Path) -> None:
    identity = read_identity(sysfs(tmp_path, uuid=SHOWN, efi=True))
    assert (identity.dmi_uuid, identity.vm_id) == (SHOWN, SHOWN)


@pytest.mark.parametrize("uuid", [None, "", "Not Settable", "0" * 36, f"{SHOWN}x", "../../../../etc/passwd"])
def test_firmware_without_a_usable_uuid_has_none(tmp_path: Path, uuid: str | None) -> None:
    identity = read_identity(sysfs(tmp_path, uuid=uuid, efi=True))
    assert (identity.dmi_uuid, identity.vm_id) == (None, None)
    assert identity.on_azure


def test_another_chassis_is_not_azure(tmp_path: Path) -> None:
    assert not read_identity(sysfs(tmp_path, uuid=SHOWN, efi=True, tag="Laptop")).on_azure
    assert not read_identity(str(tmp_path / "none")).on_azure


def test_swapping_twice_is_nothing() -> None:
    assert swap_byte_order(SHOWN) == SWAPPED
    assert swap_byte_order(SWAPPED) == SHOWN


def test_a_fact_holds_in_either_byte_order_for_this_vm_alone(tmp_path: Path) -> None:
    directory = str(tmp_path / "state")
    assert not holds(directory, READY, SHOWN)
    record(directory, READY, SHOWN)
    record(directory, READY, SHOWN)
    assert holds(directory, READY, SHOWN)
    assert holds(directory, READY, SWAPPED)
    assert not holds(directory, APPLIED, SHOWN)
    assert not holds(directory, READY, SHOWN.replace("e4", "e5"))


@pytest.mark.parametrize("target", ["{outside}", "../outside"])
def test_no_link_below_the_directory_is_followed(tmp_path: Path, target: str) -> None:
    directory, outside = tmp_path / "state", tmp_path / "outside"
    directory.mkdir()
    outside.mkdir()
    (directory / READY).symlink_to(target.format(outside=outside))
    with pytest.raises(NotADirectoryError):
        record(str(directory), READY, SHOWN)
    assert not list(outside.iterdir())
    (outside / SHOWN).touch()
    assert not holds(str(directory), READY, SHOWN)


def test_a_link_is_no_fact_and_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / APPLIED).mkdir()
    (tmp_path / APPLIED / SHOWN).symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        record(str(tmp_path), APPLIED, SHOWN)
    assert not (tmp_path / "outside").exists()
