"""The temporary disk in a guest: process 1 mounts it at the request of a unit in its sandbox, boot after boot.

On Azure sysfs tells which disk it is; here the configuration names it, and everything else is as there.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.image import cache_directory
from tests.vm.lab import ARTEFACTS, boot, new_disk
from tests.vm.recipes import RESOURCE_DISK, RESOURCE_DISK_OPENRC, RESOURCE_DISK_SYSVINIT

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from tests.vm.lab import Guest
    from tests.vm.machine import Disk
    from tests.vm.recipes import Recipe

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

MOUNT_POINT = "/mnt/resource"
UNIT = "minprov-resource-disk.service"
SIZE = 2 << 30
SETTLED = "systemctl is-system-running --wait"
STATUS = f"systemctl show {UNIT} --property=ActiveState,Result,ExecMainStatus"
MOUNTED = f"findmnt --noheadings --output=FSTYPE,OPTIONS {MOUNT_POINT}"
SWAPS = "cat /proc/swaps"
RECORDED = "for _ in $(seq 300); do test -e /var/lib/minprov/resource-disk.json && break; sleep 0.2; done"
RECORD = "cat /var/lib/minprov/resource-disk.json"
WRITE = f"echo kept >{MOUNT_POINT}/file; sync"
READ = f"cat {MOUNT_POINT}/file"
TIMEOUTS = "cat /sys/bus/scsi/drivers/sd/*/timeout"
FSTAB = "grep -c resource /etc/fstab"
LINKS = "ls /dev/disk/by-id"
READY_AFTER_IT = "find /var/lib/minprov/ready -type f -newer /var/lib/minprov/resource-disk.json | wc -l"
ADDED = "/dev/disk/by-id/scsi-0Msft_Virtual_Disk_added"
ADDED_TIMEOUT = (
    f"for _ in $(seq 100); do test -e {ADDED} && break; sleep 0.2; done; "
    f"cat /sys/class/block/$(basename $(readlink {ADDED}))/device/timeout"
)


# QEMU's NVMe disks have a model that cannot be chosen: these are the kernel's own target, reached through the loopback.
NVMET = "/sys/kernel/config/nvmet"
# The target says that its controllers may share a disk (drivers/nvme/target/admin-cmd.c: CMIC), which Azure's do not:
# the driver would show a disk above them that has no time-out.
NO_MULTIPATH = "nvme_core.multipath=N"
NVME_TARGET = " && ".join(
    (
        "modprobe --all nvmet nvmet_tcp nvme_tcp",
        "{ mountpoint --quiet /sys/kernel/config || mount -t configfs none /sys/kernel/config; }",
        f"mkdir {NVMET}/ports/1",
        f"cd {NVMET}/ports/1",
        "echo tcp >addr_trtype && echo ipv4 >addr_adrfam && echo 127.0.0.1 >addr_traddr && echo 4420 >addr_trsvcid",
    )
)


def _attach_nvme(name: str, model: str) -> str:
    """Return a line of shell that attaches an NVMe disk."""
    return " && ".join(
        (
            f"truncate --size=1G /root/{name}",
            f"mkdir {NVMET}/subsystems/{name} {NVMET}/subsystems/{name}/namespaces/1",
            f"cd {NVMET}/subsystems/{name}",
            f"echo 1 >attr_allow_any_host && echo '{model}' >attr_model",
            f"echo /root/{name} >namespaces/1/device_path && echo 1 >namespaces/1/enable",
            f"ln -s {NVMET}/subsystems/{name} {NVMET}/ports/1/subsystems/{name}",
            f"echo transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn={name} >/dev/nvme-fabrics",
        )
    )


LOCAL_NVME = _attach_nvme("local", "Microsoft NVMe Direct Disk v2")
REMOTE_NVME = _attach_nvme("remote", "MSFT NVMe Accelerator v1.0")
NVME_DISKS = "sleep 2; udevadm settle; cd /sys/class/nvme; grep . */model */nvme*/queue/io_timeout"
# No disk is named: sysfs tells which it is.
UNNAMED = "printf '[resource-disk]\\ndevice = \"\"\\n' >/etc/minprov/minprov.toml.d/unnamed.toml"
AGAIN = f"systemctl restart {UNIT}; {RECORD}"
NVME_MOUNTED = f"findmnt --noheadings --output=SOURCE,FSTYPE {MOUNT_POINT}; grep {MOUNT_POINT} /proc/swaps"
NVME = (
    NVME_TARGET,
    LOCAL_NVME,
    REMOTE_NVME,
    NVME_DISKS,
    f"mkdir -p /etc/minprov/minprov.toml.d; {UNNAMED}",
    AGAIN,
    NVME_MOUNTED,
)


class Seen(NamedTuple):
    """What a guest answers, by question, and what the platform was told."""

    answers: dict[str, str]
    reports: list[tuple[str, str]]
    data_disk_is_the_same: bool

    @property
    def states(self) -> dict[str, str]:
        """What became of each step, from the record."""
        return {action["action"]: action["state"] for action in self.record["actions"]}

    @property
    def record(self) -> dict[str, Any]:
        """What the unit has recorded."""
        document: dict[str, Any] = json.loads(self.answers[RECORD])
        return document


def fresh(path: Path, *, file: str = "") -> None:
    """Make the disk that the platform attaches."""
    volume = path.with_suffix(".volume")
    for image, size in ((path, SIZE), (volume, SIZE - (2 << 20))):
        with image.open("wb") as stream:
            stream.truncate(size)
    subprocess.run(["sfdisk", "--quiet", path], input=b"label: dos\nstart=2048, type=7\n", check=True)
    command: list[str | Path] = ["mkntfs", "--quiet", "--quick", "--force", "--label", "Temporary Storage", volume]
    subprocess.run(command, check=True, capture_output=True)
    if file:
        source = path.with_suffix(".file")
        source.write_text("important\n")
        subprocess.run(["ntfscp", "--quiet", volume, source, file], check=True)
    copy = ["dd", f"if={volume}", f"of={path}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none"]
    subprocess.run(copy, check=True)
    volume.unlink()


def blank(path: Path) -> None:
    """Make a disk with nothing on it."""
    with path.open("wb") as stream:
        stream.truncate(SIZE)


def random_data(path: Path) -> Path:
    """Make a disk that is none of minprov's business."""
    path.write_bytes(os.urandom(8 << 20))
    return path


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def scsi_disk(path: Path, lun: int, serial: str) -> tuple[str, ...]:
    """Return QEMU's arguments for a disk as Hyper-V shows one."""
    return (
        *("-drive", f"file={path},format=raw,if=none,id=disk{lun},cache=unsafe"),
        *("-device", f"scsi-hd,drive=disk{lun},vendor=Msft,product=Virtual Disk,lun={lun},serial={serial}"),
    )


async def _add_disk(guest: Guest, path: Path) -> None:
    """Attach a data disk to the running machine."""
    await guest.machine.monitor.execute("blockdev-add", driver="file", filename=str(path), **{"node-name": "added"})
    hardware = {"vendor": "Msft", "product": "Virtual Disk", "lun": 3, "serial": "added"}
    await guest.machine.monitor.execute("device_add", driver="scsi-hd", drive="added", **hardware)


async def _look(
    system: Disk,
    name: str,
    temporary: Path | None,
    data: Path,
    *questions: str,
    added: Path | None = None,
    recipe: Recipe = RESOURCE_DISK,
    append: str = "",
) -> Seen:
    before = digest(data)
    devices = [*scsi_disk(data, 2, "data"), *(scsi_disk(temporary, 1, "temporary") if temporary else ())]
    async with boot(
        recipe, name=f"resource-disk-{name}", disk=system, devices=devices, memory=512, append=append
    ) as guest:
        await guest.machine.shell_ready(within=600)
        settled = (SETTLED, STATUS) if recipe.systemd else (RECORDED,)
        asked = (*settled, MOUNTED, SWAPS, RECORD, TIMEOUTS, *questions)
        answers = {question: (await guest.ask(question, within=300)).output.strip() for question in asked}
        if added:
            await _add_disk(guest, added)
            answers[ADDED_TIMEOUT] = (await guest.ask(ADDED_TIMEOUT)).output.strip()
        if recipe.systemd:
            await _keep_journal(guest, name)
        await guest.machine.power_off()
        reports = [
            (event["state"], event["description"] or "")
            for event in guest.platform.events
            if event["event"] == "health" and event["substatus"] != "Provisioning"
        ]
    return Seen(answers, reports, digest(data) == before)


async def _keep_journal(guest: Guest, name: str) -> None:
    journal = await guest.ask("journalctl --boot --no-pager --output=short-monotonic", within=240)
    (ARTEFACTS / f"resource-disk-{name}" / "journal.log").write_text(journal.output)


def _sequence(name: str, boots: Callable[[Disk, Path, Path], Any], recipe: Recipe = RESOURCE_DISK) -> BootSequence:
    async def with_disks() -> dict[str, Seen]:
        with new_disk(recipe) as system, tempfile.TemporaryDirectory(dir=cache_directory()) as directory:
            data = random_data(Path(directory, "data"))
            seen: dict[str, Seen] = await boots(system, Path(directory), data)
            return seen

    return BootSequence(name, with_disks)


async def _new_disk(system: Disk, directory: Path, data: Path) -> dict[str, Seen]:
    temporary, added = directory / "temporary", directory / "added"
    fresh(temporary)
    blank(added)
    return {"first": await _look(system, "first", temporary, data, WRITE, FSTAB, LINKS, READY_AFTER_IT, added=added)}


async def _later(system: Disk, directory: Path, data: Path) -> dict[str, Seen]:
    """A reboot, the disk exchanged by a deallocation, and none."""
    temporary, another = directory / "temporary", directory / "another"
    blank(temporary)
    fresh(another)
    return {
        "blank": await _look(system, "blank", temporary, data, WRITE),
        "reboot": await _look(system, "reboot", temporary, data, READ),
        "exchanged": await _look(system, "exchanged", another, data, f"ls {MOUNT_POINT}"),
        "none": await _look(system, "none", None, data, *NVME, append=NO_MULTIPATH),
    }


async def _with_data(system: Disk, directory: Path, data: Path) -> dict[str, Seen]:
    temporary = directory / "temporary"
    fresh(temporary, file="important")
    before = digest(temporary)
    seen = await _look(system, "with-data", temporary, data)
    assert digest(temporary) == before
    return {"with-data": seen}


def _by_script(recipe: Recipe) -> Callable[[Disk, Path, Path], Any]:
    async def play(system: Disk, directory: Path, data: Path) -> dict[str, Seen]:
        temporary = directory / "temporary"
        fresh(temporary)
        name = recipe.name.removeprefix("resource-disk-")
        return {"first": await _look(system, name, temporary, data, recipe=recipe)}

    return play


NEW_DISK = _sequence("a new temporary disk", _new_disk)
LATER = _sequence("a temporary disk, boot after boot", _later)
WITH_DATA = _sequence("a temporary disk with data", _with_data)
BY_SCRIPT = [
    _sequence(f"a temporary disk, {recipe.name}", _by_script(recipe), recipe)
    for recipe in (RESOURCE_DISK_SYSVINIT, RESOURCE_DISK_OPENRC)
]


@pytest.mark.parametrize("sequence", [NEW_DISK])
def test_a_new_disk_is_formatted_mounted_and_swapped_on(
    sequence: BootSequence, outcomes: dict[BootSequence, Future[Any]]
) -> None:
    seen = outcomes[sequence].result()["first"]
    assert "temporary" in seen.answers[LINKS], seen.answers[LINKS]
    assert seen.states == {"disk-timeouts": "changed", "resource-disk": "changed", "swap": "changed"}
    assert seen.answers[STATUS] == "Result=success\nExecMainStatus=0\nActiveState=active"
    assert seen.answers[MOUNTED].startswith("ext4 ")
    assert {"nodev", "nosuid", "noatime"} <= set(seen.answers[MOUNTED].split()[1].split(","))
    assert f"{MOUNT_POINT}/swapfile" in seen.answers[SWAPS]
    assert set(seen.answers[TIMEOUTS].split()) == {"300"}
    assert seen.answers[ADDED_TIMEOUT] == "300"
    assert seen.answers[FSTAB] == "0"
    assert seen.reports == [("Ready", "")]
    assert seen.answers[READY_AFTER_IT] == "1"
    assert seen.data_disk_is_the_same


@pytest.mark.parametrize("sequence", [on_demand(LATER)])
def test_a_later_boot_mounts_and_an_exchanged_disk_is_made_again(
    sequence: BootSequence, outcomes: dict[BootSequence, Future[Any]]
) -> None:
    seen = outcomes[sequence].result()
    assert seen["blank"].states["resource-disk"] == "changed"
    assert seen["reboot"].answers[READ] == "kept"
    assert f"{MOUNT_POINT}/swapfile" in seen["reboot"].answers[SWAPS]
    assert seen["exchanged"].answers[f"ls {MOUNT_POINT}"].split() == [
        "DATALOSS_WARNING_README.txt",
        "lost+found",
        "swapfile",
    ]
    assert f"{MOUNT_POINT}/swapfile" in seen["exchanged"].answers[SWAPS]
    assert seen["none"].states["resource-disk"] == "unchanged"
    assert seen["none"].answers[STATUS] == "Result=success\nExecMainStatus=0\nActiveState=active"
    assert all(look.data_disk_is_the_same for look in seen.values())


@pytest.mark.parametrize("sequence", [on_demand(LATER)])
def test_a_local_nvme_disk_is_found_by_its_model(
    sequence: BootSequence, outcomes: dict[BootSequence, Future[Any]]
) -> None:
    answers = outcomes[sequence].result()["none"].answers
    states = {action["action"]: action["state"] for action in json.loads(answers[AGAIN])["actions"]}
    assert states == {"disk-timeouts": "unchanged", "resource-disk": "changed", "swap": "changed"}, answers
    mounted, swap = answers[NVME_MOUNTED].splitlines()
    assert mounted.split() == ["/dev/nvme0n1", "ext4"]
    assert swap.startswith(f"{MOUNT_POINT}/swapfile")
    # The rule has given the remote disk its time-out, and left the local one's.
    assert "nvme0/nvme0n1/queue/io_timeout:30000" in answers[NVME_DISKS]
    assert "nvme1/nvme1n1/queue/io_timeout:240000" in answers[NVME_DISKS]


@pytest.mark.parametrize("sequence", [*map(on_demand, BY_SCRIPT)])
def test_the_script_of_another_init_does_the_same(
    sequence: BootSequence, outcomes: dict[BootSequence, Future[Any]]
) -> None:
    seen = outcomes[sequence].result()["first"]
    assert seen.states == {"disk-timeouts": "changed", "resource-disk": "changed", "swap": "changed"}
    assert seen.answers[MOUNTED].startswith("ext4 ")
    assert f"{MOUNT_POINT}/swapfile" in seen.answers[SWAPS]
    assert set(seen.answers[TIMEOUTS].split()) == {"300"}
    assert seen.data_disk_is_the_same


@pytest.mark.parametrize("sequence", [on_demand(WITH_DATA)])
def test_a_disk_with_data_is_left_and_the_system_comes_up(
    sequence: BootSequence, outcomes: dict[BootSequence, Future[Any]]
) -> None:
    seen = outcomes[sequence].result()["with-data"]
    assert seen.states["resource-disk"] == "failed"
    assert "important" in seen.record["error"]["data"]["files"]
    assert seen.answers[STATUS] == f"Result=exit-code\nExecMainStatus={os.EX_DATAERR}\nActiveState=failed"
    assert seen.answers[MOUNTED] == ""
    [(state, description)] = seen.reports
    assert state == "NotReady"
    assert "reason=resource disk holds data" in description
    assert seen.data_disk_is_the_same
