"""Time-outs of the disks that are there, and the rule for those that come; blank disks, and unreadable ones."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from minprov.duties.resource_disk import timeouts
from minprov.duties.resource_disk.contents import END_SIZE, WHOLE_LIMIT, Blank, find_blank
from minprov.duties.resource_disk.disk import Here
from minprov.duties.resource_disk.settings import Options
from minprov.errors import ProvisioningError, Reason
from tests.duties.sysfs import DATA, GENERATION_2, LOCAL_2, REMOTE, Tree


@pytest.mark.root  # the rule's file is root's
def test_time_outs_that_are_too_short_are_raised_and_larger_ones_stay(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "sys")
    tree.scsi("sda", GENERATION_2, 0, 0)
    tree.scsi("sdb", DATA, 1, 0, timeout=600)
    tree.scsi("sdc", DATA, 1, 1, timeout=30)
    tree.scsi("sr0", GENERATION_2, 0, 2, timeout=30, kind="5")
    tree.nvme(0, REMOTE, serial="1")
    tree.nvme(1, LOCAL_2, serial="2")
    options = Options(rules_file=str(tmp_path / "udev/rules.d/70.rules"))
    here = Here(str(tmp_path), None, on_azure=True, sysfs=str(tree.root))
    before = asyncio.run(timeouts.inspect(options, here))
    assert before.present == (
        "nvme0n1 30000 ms, to be 240000 ms; sda 180 s, to be 300 s; sdc 30 s, to be 300 s; no udev rule"
    )
    asyncio.run(timeouts.converge(options, here))
    assert asyncio.run(timeouts.inspect(options, here)).holds
    values = {name: (tree.root / f"block/{name}/device/timeout").read_text() for name in ("sda", "sdb", "sdc", "sr0")}
    assert values == {"sda": "300\n", "sdb": "600\n", "sdc": "300\n", "sr0": "30\n"}
    nvme = [(tree.root / f"block/{name}/queue/io_timeout").read_text() for name in ("nvme0n1", "nvme1n1")]
    assert nvme == ["240000\n", "30000\n"]
    assert 'ATTR{timeout}=="30|60|90|180", ATTR{timeout}="300"' in (tmp_path / "udev/rules.d/70.rules").read_text()


def test_a_rule_never_lowers_a_value() -> None:
    text = timeouts.rules(Options(timeout_scsi=60, timeout_nvme_remote=20))
    assert 'ATTR{timeout}=="30", ATTR{timeout}="60"' in text
    assert "nvme" not in text


@pytest.mark.root  # the rule's file is root's
def test_a_time_out_that_the_kernel_does_not_take_is_a_failure(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "sys")
    tree.scsi("sda", GENERATION_2, 0, 0)
    attribute = tree.root / "block/sda/device/timeout"
    attribute.unlink()
    attribute.mkdir()
    options = Options(rules_file=str(tmp_path / "70.rules"))
    with pytest.raises(ProvisioningError) as caught:
        asyncio.run(timeouts.converge(options, Here(str(tmp_path), None, on_azure=True, sysfs=str(tree.root))))
    assert caught.value.reason is Reason.DISK_TIMEOUT_NOT_SET


@pytest.mark.parametrize(
    ("size", "at", "blank"),
    [
        (1 << 20, None, Blank.YES),
        (3 << 20, (3 << 20) - 1, Blank.NO),
        (64 << 30, None, Blank.SAMPLED),
        (64 << 30, 0, Blank.NO),
        (64 << 30, END_SIZE - 1, Blank.NO),
        (64 << 30, (64 << 30) - 1, Blank.NO),
        (64 << 30, 32 << 30, Blank.NO),
    ],
)
def test_a_byte_that_is_not_zero_is_seen(size: int, at: int | None, blank: Blank) -> None:
    def read(offset: int, length: int) -> bytes:
        data = bytearray(length)
        if at is not None and offset <= at < offset + length:
            data[at - offset] = 1
        return bytes(data)

    assert find_blank(read, size) is blank


def test_a_disk_of_four_gigabytes_is_read_whole() -> None:
    places: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        places.append((offset, length))
        return bytes(length)

    assert find_blank(read, WHOLE_LIMIT) is Blank.YES
    assert sum(length for _, length in places) == WHOLE_LIMIT


UNREADABLE = """
import asyncio, sys
from pathlib import Path
from minprov.duties.resource_disk.contents import look
from minprov.duties.resource_disk.discovery import find_resource_disk
from minprov.duties.resource_disk.settings import Options
from minprov.errors import ProvisioningError
from tests.duties.loop import loop_device
from tests.harness.disk import mount_faulty_file

mount_faulty_file(sys.argv[1], bytes(8 << 20), at=5 << 20, hangs=False)
with loop_device(Path(sys.argv[1])) as device:
    try:
        print(asyncio.run(look(find_resource_disk(Options(device=device)))))
    except ProvisioningError as error:
        print(error.reason.name)
"""


@pytest.mark.root
def test_what_cannot_be_read_is_not_blank(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        "-c",
        UNREADABLE,
        str(tmp_path / "disk"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout == "RESOURCE_DISK_NOT_USABLE\n"
