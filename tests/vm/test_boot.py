"""``python -m minprov.emulator boot IMAGE``, as somebody runs it who is about to upload an image.

What a verdict is made of needs no operating system: a few instructions in a boot sector are a guest that fails.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minprov.errors import Reason
from tests.harness.terminal import run_on_terminal
from tests.vm import recipes
from tests.vm.image import ensure_image

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

BOOT = (sys.executable, "-m", "minprov.emulator", "boot")

SPEAK = bytes.fromhex(
    "31c0 8ed8"  # ds = 0
    "baf803"  # the first serial port
    "be347c"  # the text, at 0x7c34
    "ac 84c0 7403 ee ebf8"  # each byte up to the zero
)
SWITCH_OFF = bytes.fromhex("ba0406 b80020 ef")  # ACPI's sleep request, at the port where this machine has it
STOP = bytes.fromhex("f4 ebfd")


def boot(image: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run([*BOOT, image, *options], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def write_guest(path: Path, text: bytes, *instructions: bytes) -> Path:
    sector = b"".join((SPEAK, *instructions, STOP)).ljust(0x34, b"\0") + text + b"\0"
    path.write_bytes(sector.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    return path


def test_a_guest_that_never_reports_is_shown_by_its_console(tmp_path: Path) -> None:
    image = write_guest(tmp_path / "mute.img", b"Kernel panic - \x1b[31mnot syncing\x1b[0m\r\n")
    console = tmp_path / "console.log"
    status, said = boot(image, "--limit", "10", "--console", str(console))
    assert status == 1
    assert "  | Kernel panic - not syncing\n" in said
    assert "DHCP lease: never asked for\nThe platform was asked: nothing\n" in said
    assert said.endswith("Not provisioned: nothing was reported in 10 s.\n")
    assert b"\x1b[31mnot syncing" in console.read_bytes()


def test_a_guest_that_switches_itself_off_is_not_waited_for(tmp_path: Path) -> None:
    image = write_guest(tmp_path / "off.img", b"", SWITCH_OFF)
    status, said = boot(image)
    assert status == 1
    assert "The serial console said nothing: is console=ttyS0 missing?\n" in said
    assert said.endswith("Not provisioned: the machine switched itself off before it reported.\n")


def test_an_image_that_qemu_cannot_read_is_refused_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "torn.qcow2").write_bytes(b"QFI\xfb\0\0\0\x03" + bytes(1 << 20))
    status, said = boot(tmp_path / "torn.qcow2")
    assert status == Reason.TOOL_FAILED.exit_status
    assert "minprov.emulator: system tool failed: tool=qemu-system-x86_64, detail=" in said
    assert "torn.qcow2" in said


def test_who_waits_at_a_terminal_sees_for_what(tmp_path: Path) -> None:
    image = write_guest(tmp_path / "mute.img", b"Starting nothing\r\n")
    status, shown = run_on_terminal([*BOOT, str(image), "--limit", "10"], {"TERM": "xterm"})
    assert status == 1
    assert re.search(r"\r +\d\.\d s  until a report, 10 s at most  \| Starting nothing\x1b\[K", shown)
    assert shown.endswith("\x1b[31mNot provisioned: nothing was reported in 10 s.\x1b[m\r\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_an_interrupted_boot(tmp_path: Path, number: int) -> None:
    image = write_guest(tmp_path / "mute.img", b"")
    # A shell has the jobs that it puts in the background ignore SIGINT, and what they start inherits that.
    command = ["env", "--default-signal=INT", *BOOT, str(image)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("mute.img starts as web-01: ")
        concerned = [int(path.name) for path in Path("/proc").glob("[0-9]*") if str(image) in command_line(path)]
        assert len(concerned) >= 2
        ends = [os.pidfd_open(process_id) for process_id in concerned]
        process.send_signal(number)
        process.stdout.read()
    for end in ends:
        assert select.select([end], [], [], 30)[0], "still runs"
        os.close(end)


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


@pytest.mark.long
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_an_image_that_provisions_itself_is_told_to_be_usable(firmware: str) -> None:
    image = ensure_image(recipes.APPLIANCE).disk
    before = image.stat().st_mtime_ns
    status, said = boot(image, "--check", "--firmware", firmware, "--login", "key", "--login", "password")
    assert status == 0, said
    assert " checks passed\n" in said
    assert "report   Ready\n" in said
    assert "login    azureuser by key\n" in said
    assert "login    azureuser by password\n" in said
    assert said.splitlines()[-1].startswith("Provisioned: Ready after ")
    assert image.stat().st_mtime_ns == before


@pytest.mark.long
def test_an_image_whose_provisioner_gives_up_tells_why() -> None:
    status, said = boot(ensure_image(recipes.APPLIANCE).disk, "--set", "username=root")
    assert status == 1
    assert "report   NotReady ProvisioningFailed result=error|reason=" in said
    assert said.endswith("Not provisioned: the guest reported that it failed.\n")


@pytest.mark.long
def test_an_image_without_a_provisioner_is_told_by_its_silence() -> None:
    status, said = boot(ensure_image(recipes.FORGOTTEN).disk, "--limit", "300")
    assert status == 1
    assert "  | web-01 login: " not in said
    assert "  | golden login: " in said
    assert "DHCP lease: 10.0.0.4 for golden\nThe platform was asked: nothing\n" in said
    assert said.endswith("Not provisioned: nothing was reported in 300 s.\n")
