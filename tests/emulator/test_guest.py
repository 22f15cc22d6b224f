"""What is decided before a guest boots: what its image is, which firmware starts it, what is missing.

That it boots is shown by `tests/vm`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from minprov.emulator.guest import cli
from minprov.emulator.guest.architecture import ARM64, X64
from minprov.emulator.guest.cli import main
from minprov.emulator.guest.image import open_image, uefi_arguments
from minprov.emulator.guest.transcript import Transcript, UnheardError
from minprov.emulator.vm import SAMPLE_VM, VirtualMachine, dump_vm, load_vm
from minprov.errors import ProvisioningError, Reason
from tests.image.test_vhd import MIB, make_image, with_loader

if TYPE_CHECKING:
    from pathlib import Path

    from minprov.emulator.guest.boot import Trial

BOOT_SECTOR = bytes(510) + b"\x55\xaa"
FIXED_VHD = BOOT_SECTOR + bytes(4096) + b"conectix".ljust(512, b"\0")


@pytest.mark.parametrize(
    ("content", "driver"),
    [
        (BOOT_SECTOR, "raw"),
        (BOOT_SECTOR + bytes(4096), "raw"),
        (b"QFI\xfb" + bytes(4096), "qcow2"),
        (b"conectix" + bytes(4096), "vpc"),
        (FIXED_VHD, "vpc"),
        (b"vhdxfile" + bytes(4096), "vhdx"),
    ],
)
def test_an_image_is_known_by_its_content(tmp_path: Path, content: bytes, driver: str) -> None:
    image = tmp_path / "image"
    image.write_bytes(content)
    assert open_image(image).driver == driver


def test_a_comma_in_a_name_does_not_end_it(tmp_path: Path) -> None:
    image = tmp_path / "a,snapshot=off.img"
    image.write_bytes(BOOT_SECTOR)
    assert f"{tmp_path}/a,,snapshot=off.img,format=raw,snapshot=on" in " ".join(open_image(image).arguments)


@pytest.mark.parametrize("content", [b"", b"x", b"#!/bin/sh\n" * 100, bytes(4096)])
def test_what_nothing_could_boot_from_is_no_image(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "notes.txt"
    image.write_bytes(content)
    assert main([str(image)]) == os.EX_USAGE
    assert f"image={image}, detail=not a disk image" in capsys.readouterr().err


def test_an_image_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent.qcow2")]) == os.EX_USAGE
    assert f"image={tmp_path}/absent.qcow2, detail=No such file or directory" in capsys.readouterr().err


def test_a_password_login_needs_a_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "image").write_bytes(BOOT_SECTOR)
    (tmp_path / "vm.toml").write_text('hostname = "web-01"\n')
    options = ["--login", "password", "--vm", str(tmp_path / "vm.toml")]
    assert main([str(tmp_path / "image"), *options]) == os.EX_USAGE
    assert "the VM has no password" in capsys.readouterr().err


def test_without_qemu_its_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(BOOT_SECTOR)
    # A search path that has everything else: the module looks in sbin by itself, where no distribution has QEMU.
    tools = tmp_path / "tools"
    tools.mkdir()
    for directory in ("/usr/sbin", "/usr/bin"):
        for name in os.listdir(directory):
            if not name.startswith("qemu") and not (tools / name).is_symlink():
                (tools / name).symlink_to(f"{directory}/{name}")
    done = subprocess.run(
        [sys.executable, "-m", "minprov.emulator", "boot", tmp_path / "image"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Reason.TOOL_NOT_FOUND.exit_status
    assert "tool=qemu-system-x86_64, action=install qemu-system-x86_64 (Debian: qemu-system-x86)" in done.stderr


def firmware(*, features: list[str], machines: list[str], code: str, variables: Path) -> str:
    flash = {"executable": {"filename": code}, "nvram-template": {"filename": str(variables)}}
    return json.dumps(
        {
            "interface-types": ["uefi"],
            "mapping": {"device": "flash", **flash},
            "targets": [{"architecture": "x86_64", "machines": machines}],
            "features": features,
        }
    )


def test_uefi_is_the_first_described_that_this_machine_can_run(tmp_path: Path) -> None:
    described = tmp_path / "firmware"
    described.mkdir()
    variables = tmp_path / "variables"
    variables.write_bytes(b"empty")
    pc = ["pc-i440fx-*", "pc-q35-*"]
    for name, features, machines in (
        ("40-smm.json", ["requires-smm", "secure-boot"], ["pc-q35-*"]),
        ("50-q35.json", [], ["pc-q35-*"]),
        ("60-plain.json", ["acpi-s3"], pc),
        ("70-later.json", [], pc),
    ):
        (described / name).write_text(firmware(features=features, machines=machines, code=name, variables=variables))
    arguments = uefi_arguments(tmp_path, X64, [tmp_path / "absent", described])
    assert "if=pflash,unit=0,format=raw,readonly=on,file=60-plain.json" in arguments
    assert f"if=pflash,unit=1,format=raw,file={tmp_path}/uefi-variables.fd" in arguments
    assert (tmp_path / "uefi-variables.fd").read_bytes() == b"empty"


def test_without_uefi_firmware_its_package_is_named(tmp_path: Path) -> None:
    for architecture, package in ((X64, "ovmf"), (ARM64, "qemu-efi-aarch64")):
        with pytest.raises(ProvisioningError, match=rf"install it \(Debian: {package}\)") as caught:
            uefi_arguments(tmp_path, architecture, [tmp_path])
        assert caught.value.reason is Reason.TOOL_NOT_FOUND


@pytest.mark.parametrize(
    ("loader", "arguments", "tool"),
    [
        ("BOOTX64.EFI", [], "qemu-system-x86_64"),
        ("BOOTAA64.EFI", [], "qemu-system-aarch64"),
        ("BOOTX64.EFI", ["--arch", "Arm64"], "qemu-system-aarch64"),
        ("BOOTAA64.EFI", ["--arch", "x64"], "qemu-system-x86_64"),
    ],
)
def test_the_loader_tells_the_processor(
    tmp_path: Path, loader: str, arguments: list[str], tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image(tmp_path / "image", 30 * MIB)
    with_loader(image, loader)
    trials: list[Trial] = []

    async def keep(trial: Trial, say: object) -> bool:
        trials.append(trial)
        return True

    monkeypatch.setattr(cli, "try_image", keep)
    assert cli.main([str(image), *arguments]) == os.EX_OK
    assert trials[0].architecture.qemu == tool
    assert trials[0].uefi == (tool == "qemu-system-aarch64")


def test_no_bios_starts_arm64(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "image").write_bytes(BOOT_SECTOR)
    assert cli.main([str(tmp_path / "image"), "--arch", "Arm64", "--firmware", "bios"]) == os.EX_USAGE
    assert "aarch64 has UEFI alone" in capsys.readouterr().err


@pytest.mark.parametrize("vm", [SAMPLE_VM, VirtualMachine(), VirtualMachine(hostname='"\\\x7f\n', user_data=b"\xff")])
def test_a_vm_survives_its_file(tmp_path: Path, vm: VirtualMachine) -> None:
    (tmp_path / "vm.toml").write_text(dump_vm(vm), encoding="utf-8")
    again = load_vm(tmp_path / "vm.toml")
    assert dump_vm(again) == dump_vm(vm)
    assert (again.hostname, again.user_data, again.ssh_public_keys) == (vm.hostname, vm.user_data, vm.ssh_public_keys)


def test_a_transcript_waits_for_what_comes_after_what_was_heard() -> None:
    async def listen() -> list[str]:
        transcript = Transcript("a guest")
        transcript.feed(b"login: one\nlo")
        waiting = asyncio.create_task(transcript.expect(r"login: (\w+)\n", within=10))
        assert (await waiting)[1] == "one"
        waiting = asyncio.create_task(transcript.expect(r"login: (\w+)\n", within=10))
        transcript.feed(b"gin: two\nthe end")
        assert (await waiting)[1] == "two"
        transcript.close()
        with pytest.raises(UnheardError, match=r"a guest ended without 'three'; it said:\n(.|\n)*the end"):
            await transcript.expect("three", within=10)
        with pytest.raises(UnheardError, match="did not say 'four' in 0 s"):
            await Transcript("a guest").expect("four", within=0)
        return [line for _, line in transcript.arrivals]

    assert asyncio.run(listen()) == ["login: one", "login: two"]
