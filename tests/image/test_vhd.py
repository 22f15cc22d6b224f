"""`minprov vhd` on real images of every format: what it writes Azure takes, and what it refuses leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minprov.cli import run
from minprov.errors import Reason
from minprov.formats.partitions import ESP, parse_partition_table
from minprov.formats.vhd_footer import MAX_OS_DISK, SIZE, parse_footer, violations

MIB = 1 << 20
GPT = f"label: gpt\nsize=4MiB, type={ESP}\ntype=linux\n"


def make_image(path: Path, size: int, script: str = GPT) -> Path:
    """Make a raw image with a partition table and some data, at its end too, and holes."""
    path.touch()
    os.truncate(path, size)
    if script:
        subprocess.run(["/usr/sbin/sfdisk", "--quiet", path], input=script.encode(), check=True)
    with path.open("r+b") as disk:
        for offset in (9 * MIB + 4096, size - 5 * MIB + 100):
            disk.seek(offset)
            disk.write(os.urandom(300_000))
    return path


def convert(image: Path, image_format: str, *options: str) -> Path:
    target = image.with_suffix(f".{image_format}")
    subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", image_format, *options, image, target], check=True)
    return target


def make(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, object]:
    """Run the command and return its document."""
    assert run(["vhd", "--json", *map(str, argv)]) == os.EX_OK
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "image.raw", 30 * MIB)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("script", [GPT, "label: dos\ntype=83, bootable\n", ""], ids=["gpt", "mbr", "none"])
def test_an_aligned_disk_becomes_what_qemu_makes_of_it(tmp_path: Path, script: str) -> None:
    image = make_image(tmp_path / "image.raw", 30 * MIB, script)
    theirs = convert(image, "vpc", "-o", "subformat=fixed,force_size=on").read_bytes()
    assert run(["vhd", str(image), str(tmp_path / "out.vhd")]) == os.EX_OK
    ours = (tmp_path / "out.vhd").read_bytes()
    assert ours[:-SIZE] == theirs[:-SIZE] == image.read_bytes()
    mine, other = parse_footer(ours[-SIZE:]), parse_footer(theirs[-SIZE:])
    free = ("uuid", "time_stamp", "creator", "creator_version", "checksum")
    assert mine == other._replace(**{field: getattr(mine, field) for field in free})
    assert ours[-SIZE + 85 :] == theirs[-SIZE + 85 :]
    assert violations(ours[-SIZE:], len(ours)) == []


@pytest.mark.parametrize("size", [20 * MIB, 21 * MIB, 1 << 30, 2 << 40, 4 << 40])
def test_disks_of_every_size_stay_sparse(tmp_path: Path, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    image, out = make_image(tmp_path / "image.raw", size), tmp_path / "out.vhd"
    document = make(capsys, image, out)
    assert out.stat().st_size == size + SIZE
    assert allocated(out) < 2 * MIB
    assert (size > MAX_OS_DISK) == any("data disk" in note for note in document["notes"])  # type: ignore[attr-defined]
    with out.open("rb") as disk:
        disk.seek(size)
        assert violations(disk.read(), size + SIZE) == []
    with image.open("rb") as disk, out.open("rb") as copy:
        for start in (0, size - 16 * MIB):
            disk.seek(start)
            copy.seek(start)
            assert disk.read(16 * MIB) == copy.read(16 * MIB)


@pytest.mark.parametrize("image_format", ["raw", "qcow2", "vhdx", "vmdk"])
def test_an_odd_disk_grows_to_whole_mebibytes_with_its_gpt(
    tmp_path: Path, image_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = make_image(tmp_path / "image.raw", 30 * MIB + 1536), tmp_path / "out.vhd"
    image = raw if image_format == "raw" else convert(raw, image_format)
    document = make(capsys, image, out)
    assert document["image"] == {"path": str(image), "format": image_format, "size": 30 * MIB + 1536}
    assert document["vhd"] == {"path": str(out), "size": 31 * MIB, "file_size": 31 * MIB + SIZE}
    assert document["gpt_backup_moved"]
    assert allocated(out) < 2 * MIB
    disk = out.read_bytes()[:-SIZE]
    table = parse_partition_table(lambda offset, length: disk[offset : offset + length], len(disk))
    assert table is not None
    assert table.faults == ()
    assert disk[1024 : 30 * MIB + 1536] == raw.read_bytes()[1024:]
    out.write_bytes(disk)
    assert (
        "No problems found"
        in subprocess.run(["/usr/sbin/sgdisk", "--verify", out], capture_output=True, text=True).stdout
    )


def test_vhds_are_read_too(tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = convert(image, "vpc", "-o", "subformat=fixed,force_size=on")
    make(capsys, fixed, tmp_path / "from-fixed.vhd")
    fixed.unlink()
    dynamic = convert(image, "vpc", "-o", "subformat=dynamic,force_size=on")
    make(capsys, dynamic, tmp_path / "from-dynamic.vhd")
    for name in ("from-fixed.vhd", "from-dynamic.vhd"):
        assert (tmp_path / name).read_bytes()[:-SIZE] == image.read_bytes()


def test_a_size_lets_the_disk_grow(tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = make(capsys, image, tmp_path / "out.vhd", "--size", "1G")
    assert document["gpt_backup_moved"]
    assert (tmp_path / "out.vhd").stat().st_size == (1 << 30) + SIZE


def test_a_small_disk_grows_to_the_least_that_azure_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(capsys, make_image(tmp_path / "image.raw", 16 * MIB), tmp_path / "out.vhd")
    assert (tmp_path / "out.vhd").stat().st_size == 20 * MIB + SIZE


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str]:
    """Run the command and return how it ended; whatever it was, no file is left of it."""
    before = sorted(tmp_path.iterdir())
    status = run(["vhd", *map(str, argv)])
    assert sorted(tmp_path.iterdir()) == before
    return status, capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out in (tmp_path / "file", tmp_path / "link"):
        out.write_text("mine") if out.name == "file" else out.symlink_to("nowhere")
        status, message = refused(tmp_path, capsys, image, out)
        assert status == os.EX_CANTCREAT
        assert f"path={out}, detail=it exists, and nothing is overwritten" in message
    assert (tmp_path / "file").read_text() == "mine"
    assert refused(tmp_path, capsys, image, image)[0] == os.EX_CANTCREAT


def test_a_disk_does_not_shrink(tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, message = refused(tmp_path, capsys, image, tmp_path / "out.vhd", "--size", "29M")
    assert (status, "would shrink" in message) == (os.EX_USAGE, True)


def test_a_disk_that_was_cut_short_is_refused(tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.truncate(image, 25 * MIB)
    status, message = refused(tmp_path, capsys, image, tmp_path / "out.vhd")
    assert (status, "beyond the end of the disk" in message) == (os.EX_DATAERR, True)


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_an_image_in_use_is_refused(
    tmp_path: Path, image: Path, image_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    used = image if image_format == "raw" else convert(image, image_format)
    with used.open("r+b"):
        status, message = refused(tmp_path, capsys, used, tmp_path / "out.vhd")
    assert (status, "has it open for writing" in message) == (os.EX_TEMPFAIL, True)
    with used.open("rb"):
        assert run(["vhd", str(used), str(tmp_path / "out.vhd")]) == os.EX_OK


@pytest.mark.root
def test_a_mounted_disk_is_refused(tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", image], check=True)
    attach: list[str | Path] = ["/usr/sbin/losetup", "--find", "--show", image]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    mount = tmp_path / "mount"
    mount.mkdir()
    try:
        assert "has it open for writing" in refused(tmp_path, capsys, image, tmp_path / "out.vhd")[1]
        make(capsys, device, tmp_path / "from-device.vhd")
        subprocess.run(["mount", device, mount], check=True)
        status, message = refused(tmp_path, capsys, device, tmp_path / "out.vhd")
        assert (status, "Device or resource busy" in message) == (os.EX_TEMPFAIL, True)
    finally:
        subprocess.run(["umount", mount], check=False)
        subprocess.run(["/usr/sbin/losetup", "--detach", device], check=True)


def test_an_image_that_refers_to_other_files_is_refused(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay, apart = tmp_path / "overlay.qcow2", tmp_path / "apart.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*create, "-F", "raw", "-b", image, overlay], check=True)
    subprocess.run([*create, "-o", f"data_file={tmp_path}/data", apart, "30M"], check=True)
    for part, other in ((overlay, image), (apart, tmp_path / "data")):
        status, message = refused(tmp_path, capsys, part, tmp_path / "out.vhd")
        assert status == os.EX_DATAERR
        assert f"a part of the disk is in another file, {other}" in message


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", os.EX_DATAERR),
        (b"QFI\xfb" + bytes(4096), os.EX_DATAERR),
        (b"QFI\xfb\0\0\0\3" + b"\xff" * 4096, os.EX_DATAERR),
        (b"vhdxfile" + bytes(4096), os.EX_DATAERR),
        (b"KDMV" + bytes(4096), os.EX_DATAERR),
        (b"conectix" + bytes(4096), os.EX_DATAERR),
    ],
)
def test_a_broken_image_is_refused(
    tmp_path: Path, content: bytes, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(content)
    ended, message = refused(tmp_path, capsys, broken, tmp_path / "out.vhd")
    assert (ended, f"image={broken}" in message) == (status, True)


@pytest.mark.parametrize("command", ["gzip", "xz", "zstd", "bzip2", "tar", "descriptor", "vdi"])
def test_what_holds_a_disk_and_is_none_is_refused(
    command: str, tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = image.with_suffix(f".{command}")
    if command == "vdi":
        convert(image, "vdi")
    elif command == "descriptor":
        packed = convert(image, "vmdk", "-o", "subformat=monolithicFlat")
    else:
        argv = ["tar", "-cf", "-", "-C", str(tmp_path), image.name] if command == "tar" else [command, "-c", str(image)]
        packed.write_bytes(subprocess.run(argv, check=True, capture_output=True).stdout)
    for words in (["vhd", str(packed), str(tmp_path / "out.vhd")], ["check", str(packed)]):
        assert run(words) == Reason.IMAGE_INVALID.exit_status
        assert "detail=it is " in capsys.readouterr().err
    assert not (tmp_path / "out.vhd").exists()


def test_what_is_no_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "absent", Path("/dev/null")):
        assert refused(tmp_path, capsys, path, tmp_path / "out.vhd")[0] == os.EX_USAGE
    (tmp_path / "image").write_bytes(bytes(MIB))
    assert refused(tmp_path, capsys, tmp_path / "image", tmp_path / "absent/out.vhd")[0] == os.EX_CANTCREAT


@pytest.mark.parametrize("name", ["a,b.qcow2", "-q", "nbd:host:1", "json:{}"])
def test_a_name_is_a_name(
    tmp_path: Path, image: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(image, "qcow2").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    make(capsys, "--", name, "out.vhd")


def test_a_full_disk_leaves_nothing(tmp_path: Path, image: Path) -> None:
    for source in (image, convert(image, "qcow2")):
        before = sorted(tmp_path.iterdir())
        command = [sys.executable, "-m", "minprov", "vhd", str(source), f"{tmp_path}/out.vhd"]
        limited = ["bash", "-c", 'ulimit -f 20000; exec "$0" "$@"', *command]
        ended = subprocess.run(limited, capture_output=True, text=True)
        assert ended.returncode == os.EX_CANTCREAT, ended.stderr
        assert "File too large" in ended.stderr
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    image, out = tmp_path / "image.raw", tmp_path / "out.vhd"
    image.write_bytes(os.urandom(MIB) * 400)
    # A shell has the jobs that it puts in the background ignore SIGINT, and what they start inherits that.
    argv = ["env", "--default-signal", sys.executable, "-m", "minprov", "vhd", str(image), str(out)]
    for _ in range(10):  # on a busy machine the disk may be whole before the signal has come
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not list(tmp_path.glob(".out.vhd.*")) and not out.exists():
            assert process.poll() is None
        process.send_signal(number)
        process.send_signal(number)  # which does not cut the clearing up off
        _, said = process.communicate()
        if process.returncode:
            break
        out.unlink()
    assert (process.returncode, said) == (128 + number, b"")
    assert list(tmp_path.iterdir()) == [image]


def test_an_ignored_hangup_stays_ignored(tmp_path: Path, image: Path) -> None:
    argv = [sys.executable, "-m", "minprov", "vhd", str(image), str(tmp_path / "out.vhd")]

    def ignore() -> None:  # as nohup(1) does
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, preexec_fn=ignore)
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    assert process.returncode == 0


def test_a_dry_run_writes_nothing(tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.iterdir())
    document = make(capsys, image, tmp_path / "out.vhd", "--dry-run")
    assert (document["outcome"], document["gpt_backup_moved"]) == ("planned", False)
    qcow2 = convert(image, "qcow2")
    document = make(capsys, qcow2, tmp_path / "out.vhd", "--dry-run")
    assert (document["generations"], document["gpt_backup_moved"]) == (None, None)
    qcow2.unlink()
    assert sorted(tmp_path.iterdir()) == before


def with_loader(image: Path, loader: str) -> None:
    """Put a FAT file system with a loader on the first partition, the EFI system partition."""
    place = f"{image}@@{MIB}"
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    subprocess.run(["mformat", "-i", place, "-T", str(4 * MIB // 512), "::"], check=True, env=environment)
    subprocess.run(["mmd", "-i", place, "::/EFI", "::/EFI/BOOT"], check=True, env=environment)
    if loader:
        subprocess.run(["mcopy", "-i", place, "-", f"::/EFI/BOOT/{loader}"], input=b"MZ", check=True, env=environment)


def commands(document: dict[str, object]) -> str:
    return "\n".join(document["commands"])  # type: ignore[arg-type]


@pytest.mark.parametrize(("loader", "architecture"), [("BOOTX64.EFI", "x64"), ("bootaa64.efi", "Arm64")])
def test_uefi_disks_are_for_generation_2(
    tmp_path: Path, image: Path, loader: str, architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with_loader(image, loader)
    document = make(capsys, image, tmp_path / "web.vhd")
    assert (document["generations"], document["architecture"], document["notes"]) == (["V2"], architecture, [])
    kind = f"--hyper-v-generation V2 --architecture {architecture}"
    assert (
        f"az disk create --resource-group GROUP --name web --location LOCATION --os-type Linux --sku Standard_LRS "
        f"--for-upload --upload-size-bytes {30 * MIB + SIZE} {kind}\n" in commands(document)
    )
    assert (
        f"--os-state Generalized {kind} --features 'SecurityType=Standard IsAcceleratedNetworkSupported=true "
        "DiskControllerTypes=SCSI'\n" in commands(document)
    )
    assert "--enable-agent false" in commands(document)


def test_what_check_proved_is_said_in_the_commands(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = make(capsys, image, tmp_path / "out.vhd", "--dry-run", "--nvme", "--trusted-launch")
    features = "SecurityType=TrustedLaunchSupported IsAcceleratedNetworkSupported=true DiskControllerTypes=SCSI,NVMe"
    assert features in commands(document)


def test_a_disk_for_a_bios_is_for_generation_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = make_image(tmp_path / "image.raw", 30 * MIB, "label: dos\ntype=83, bootable\n")
    with image.open("r+b") as disk:
        disk.write(b"\xeb\x63\x90")
    document = make(capsys, image, tmp_path / "out.vhd")
    assert document["generations"] == ["V1"]
    assert "--hyper-v-generation V1 --features 'IsAcceleratedNetworkSupported=true" in commands(document)


@pytest.mark.parametrize(
    ("script", "note"),
    [
        ("", "the disk has no partition table"),
        ("label: dos\ntype=83\n", "no boot code for a BIOS"),
        (GPT, "the EFI system partition has no EFI/BOOT/BOOTX64.EFI"),
    ],
)
def test_a_disk_that_nothing_starts_is_told(
    tmp_path: Path, script: str, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = make_image(tmp_path / "image.raw", 30 * MIB, script)
    if script == GPT:
        with_loader(image, "")
    document = make(capsys, image, tmp_path / "out.vhd")
    assert document["generations"] == []
    assert any(note in line for line in document["notes"])  # type: ignore[attr-defined]


def test_text_is_for_people(tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_loader(image, "BOOTX64.EFI")
    assert run(["vhd", str(image), str(tmp_path / "out.vhd")]) == os.EX_OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"{image}: raw, a disk of {30 * MIB} bytes",
        f"{tmp_path}/out.vhd: a fixed VHD of {30 * MIB} bytes (30 MiB) and its footer, read back",
        "  generation 2 can start it (x64)",
    ]
    assert lines[-1].startswith("az vm create ")


@pytest.mark.parametrize("size", ["0", "-1", "1X", "G", ""])
def test_a_size_is_a_number(tmp_path: Path, image: Path, size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(tmp_path, capsys, image, tmp_path / "out.vhd", f"--size={size}")[0] == os.EX_USAGE
