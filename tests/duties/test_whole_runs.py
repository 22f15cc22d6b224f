"""`minprov resource-disk` as a whole, on loop devices: made, mounted, killed and run again, refused; and off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import pytest

from minprov.errors import Reason
from tests.duties.loop import loop_device
from tests.duties.test_decisions import digest, fill

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
# The kernel has one list of swap for all mount namespaces, and another clone's tests may be in it.
MOUNT_POINT = f"/mnt/minprov-test-{token_hex(4)}"
PROGRAM = [sys.executable, "-m", "minprov"]
FRESH = {"holds": "dos 7; fresh 1"}
XFS = "PART=399M; truncate -s $PART p; printf 'start=1MiB, size=399MiB, type=7' | sfdisk -q $D; fresh 1"
DISKS = {
    "ext4": FRESH,
    "xfs": {"holds": XFS, "size": "400M"},
    "btrfs": {"holds": "true", "size": "160M"},
}

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


@pytest.fixture(scope="module", autouse=True)
def _clean_up() -> Iterator[None]:
    yield
    with suppress(FileNotFoundError):
        os.rmdir(MOUNT_POINT)


def write_config(directory: Path, device: str, *, file_system: str = "ext4", swap: str = "16MiB", **more: str) -> Path:
    config = directory / "minprov.toml"
    settings = {"device": device, "mount-point": MOUNT_POINT, "file-system": file_system, "policy": "required", **more}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    text = f'state-dir = "{directory}/state"\n[resource-disk]\n' + "\n".join(lines)
    config.write_text(f'{text}\n[swap]\npolicy = "required"\nsize = "{swap}"\n')
    return config


def in_namespace(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-euc", script, "bash", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def run(config: Path, *, before: str = "true", after: str = "true") -> tuple[int, dict[str, Any]]:
    """Run it, with shell commands before and after it, and return the exit status and what it printed."""
    script = f"""
        mounted=$1 config=$2
        shift 2
        {before}
        status=0
        "$@" resource-disk --json --config "$config" || status=$?
        {after} >&2
        ! grep -q "^$mounted/" /proc/swaps || swapoff "$mounted/swapfile"
        ! mountpoint -q "$mounted" || umount "$mounted"
        exit $status
    """
    done = in_namespace(script, MOUNT_POINT, config, *PROGRAM)
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        raise AssertionError(done.stderr) from None


def states(document: dict[str, Any]) -> dict[str, str]:
    return {action["action"]: action["state"] for action in document["actions"]}


@pytest.mark.parametrize("file_system", DISKS)
def test_a_disk_is_made_once_and_mounted_from_then_on(file_system: str, tmp_path: Path) -> None:
    image = fill(tmp_path, DISKS[file_system])
    with loop_device(image) as device:
        config = write_config(tmp_path, device, file_system=file_system)
        look = 'test "$(stat -c %a%u "$mounted/swapfile")" = 6000; test -s "$mounted/.minprov"'
        status, first = run(
            config, after=f'{look}; echo kept >"$mounted/file"; grep -q "$mounted/swapfile" /proc/swaps'
        )
        assert (status, states(first)) == (0, {"resource-disk": "changed", "swap": "changed"})
        status, second = run(config, after='test "$(cat "$mounted/file")" = kept')
        assert (status, states(second)) == (0, {"resource-disk": "changed", "swap": "changed"})
        assert "to be mounted" in second["actions"][0]["detail"]
    record = json.loads((tmp_path / "state/resource-disk.json").read_text())
    assert record.pop("boot_id")
    assert record == second
    assert not (tmp_path / "state/resource-disk.journal").exists()


# The n-th of the effects of the program, or of one of its tools.
KILLS = [
    *[("ext4", n) for n in (3, 6, 9, 11, 13, 15, 17, 20)],
    *[("xfs", n) for n in (6, 12, 40)],
    *[("btrfs", n) for n in (7, 12, 30)],
]


@pytest.mark.parametrize(("file_system", "n"), KILLS)
def test_what_a_kill_leaves_is_made_good_by_the_next_run(file_system: str, n: int, tmp_path: Path) -> None:
    image = fill(tmp_path, DISKS[file_system])
    with loop_device(image) as device:
        config = write_config(tmp_path, device, file_system=file_system)
        done = in_namespace('exec bash "$@"', f"{HERE}/killed.sh", str(n), config, device, MOUNT_POINT, *PROGRAM)
    assert "met none" not in done.stdout
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("more", "before", "reason"),
    [
        ({}, 'mkdir -p "$mounted"; mount -t tmpfs none /mnt; mkdir "$mounted"; touch "$mounted/x"', "is not empty"),
        ({}, 'mount -t tmpfs none /mnt; mkdir /mnt/other; ln -s other "$mounted"', "a link leads to it"),
        ({}, 'mkdir -p "$mounted"; mount -t tmpfs none "$mounted"', "something else is mounted there"),
        ({"mount-point": "/var/lib"}, "true", "a directory of the system"),
        ({"mount-point": "/usr/x"}, "true", "a directory of the system"),
        ({"mount-point": "/mnt/../mnt"}, "true", "without . and .."),
        ({"options": "no-such-option"}, "true", "resource disk not usable"),
    ],
)
def test_a_mount_that_cannot_be_is_refused(more: dict[str, str], before: str, reason: str, tmp_path: Path) -> None:
    with loop_device(fill(tmp_path, FRESH)) as device:
        status, document = run(write_config(tmp_path, device, **more), before=before)
    assert status == Reason.RESOURCE_DISK_NOT_USABLE.exit_status
    assert states(document)["resource-disk"] == "failed"
    assert reason in str(document["error"])


def test_best_effort_exits_0_with_the_reason_in_the_record(tmp_path: Path) -> None:
    image = fill(tmp_path, {"holds": "mkfs.ext4 -q -L data $D"})
    before = digest(image)
    with loop_device(image) as device:
        config = write_config(tmp_path, device, policy="best-effort")
        config.write_text(config.read_text().replace('[swap]\npolicy = "required"', '[swap]\npolicy = "best-effort"'))
        status, document = run(config)
    assert (status, document["error"]) == (0, None)
    record = json.loads((tmp_path / "state/resource-disk.json").read_text())
    reasons = [action["error"]["reason"] for action in record["actions"]]
    assert reasons == [Reason.RESOURCE_DISK_HOLDS_DATA.phrase, Reason.SWAP_NOT_ACTIVE.phrase]
    assert digest(image) == before


def test_a_disk_that_is_mounted_elsewhere_is_left_to_its_user(tmp_path: Path) -> None:
    with loop_device(fill(tmp_path, {"holds": "mkfs.ext4 -q $D"})) as device:
        before = f"mkdir {tmp_path}/m; mount {device} {tmp_path}/m"
        status, document = run(write_config(tmp_path, device), before=before, after=f"umount {tmp_path}/m")
    assert status == Reason.RESOURCE_DISK_IN_USE.exit_status
    assert f"is mounted at {tmp_path}/m" in document["error"]["data"]["detail"]


def test_no_disk_is_no_failure(tmp_path: Path) -> None:
    status, document = run(write_config(tmp_path, "/dev/no-such-disk", policy="best-effort"))
    assert (status, states(document)) == (0, {"resource-disk": "unchanged", "swap": "unchanged"})


def test_without_mkfs_the_disk_is_as_it_was(tmp_path: Path) -> None:
    image = fill(tmp_path, FRESH)
    before = digest(image)
    with loop_device(image) as device:
        hide = "for f in /usr/sbin/mkfs.ext4 /sbin/mkfs.ext4; do mount --bind /dev/null $f; done"
        status, document = run(write_config(tmp_path, device), before=hide)
    assert status == Reason.TOOL_NOT_FOUND.exit_status
    assert document["error"]["data"]["tool"] == "mkfs.ext4"
    assert digest(image) == before


@pytest.mark.parametrize("file_system", DISKS)
def test_a_full_disk_is_mounted_and_a_failure(file_system: str, tmp_path: Path) -> None:
    with loop_device(fill(tmp_path, DISKS[file_system])) as device:
        config = write_config(tmp_path, device, file_system=file_system)
        run(config, after='swapoff "$mounted/swapfile"; rm "$mounted/swapfile"; cat /dev/zero >"$mounted/x" || true')
        status, document = run(config, after='test -s "$mounted/x"')
    swap, disk = Reason.SWAP_NOT_ACTIVE, Reason.RESOURCE_DISK_NOT_USABLE
    # ext4 keeps a little back, which is enough for the file that is written to see whether one can.
    reason, said = (swap, "no room") if file_system == "ext4" else (disk, "No space left on device")
    assert status == reason.exit_status
    assert states(document)["swap"] == "failed"
    assert said in str(document["error"])


def test_a_file_system_that_is_not_known_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path, "/dev/no-such-disk", file_system="zfs")
    done = in_namespace('exec "$@"', *PROGRAM, "resource-disk", "--config", config)
    assert done.returncode == Reason.CONFIG_INVALID.exit_status
    assert "expected one of ext4, xfs, btrfs" in done.stderr


def test_swap_is_never_more_than_half_of_what_is_free(tmp_path: Path) -> None:
    with loop_device(fill(tmp_path, FRESH)) as device:
        size = 'test $(stat -c %s "$mounted/swapfile") -lt 45000000'
        status, _ = run(write_config(tmp_path, device, swap="100GiB"), after=size)
        assert status == 0


def test_two_runs_at_once_come_one_after_another(tmp_path: Path) -> None:
    """The first boot's run starts the program, and so does the boot's own script."""
    with loop_device(fill(tmp_path, FRESH)) as device:
        config = write_config(tmp_path, device)
        beside = '"$@" resource-disk --json --config "$config" >"${config%/*}/beside" & beside=$!'
        status, document = run(config, before=beside, after='wait "$beside"')
    both = [document, json.loads((tmp_path / "beside").read_text())]
    assert status == 0
    assert sorted(states(one)["resource-disk"] for one in both) == ["changed", "unchanged"]


def test_off_it_does_nothing_and_imports_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "minprov.toml").write_text(f'state-dir = "{tmp_path}/state"\n[swap]\npolicy = "off"\n')
    program = "import sys; from minprov.cli import run; run(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", program, "resource-disk", "--config", str(tmp_path / "minprov.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == ""
    assert {"asyncio", "minprov.duties.resource_disk.disk"} & set(done.stderr.split()) == set()
    assert not (tmp_path / "state").exists()
