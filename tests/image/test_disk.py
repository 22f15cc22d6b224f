"""Systems on real disk images, mounted by the kernel: found, complete, and the image as it was."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minprov.errors import ProvisioningError, Reason
from minprov.formats.partitions import ESP
from minprov.image.checks.outcome import run_checks
from minprov.image.disk import disk_tree
from minprov.image.esp import copy_esp
from minprov.image.findings import Severity
from minprov.image.subject import Subject
from minprov.image.tree import Tree
from tests.image.test_vhd import convert, with_loader

pytestmark = pytest.mark.root

MIB = 1 << 20
START = 8 * MIB
"""Where the partition after the EFI system partition begins."""


def make_tree(directory: Path, fstab: str = "") -> Path:
    for name in ("etc", "usr/lib", "boot/efi", "home"):
        (directory / name).mkdir(parents=True)
    (directory / "etc/os-release").write_text("ID=debian\nVERSION_ID=12\n")
    (directory / "etc/fstab").write_text(fstab)
    return directory


def make_file_system(path: Path, kind: str, tree: Path, size: int = 112 * MIB) -> Path:
    """Write a file system with the tree on it."""
    path.touch()
    os.truncate(path, size if kind != "xfs" else 304 * MIB)
    commands: dict[str, list[str | Path]] = {
        "ext4": ["mkfs.ext4", "-q", "-d", tree, path],
        "btrfs": ["mkfs.btrfs", "-q", "--rootdir", tree, path],
        "squashfs": ["mksquashfs", tree, path, "-noappend", "-quiet"],
        "erofs": ["mkfs.erofs", "--quiet", path, tree],
        "xfs": ["mkfs.xfs", "-q", path],
    }
    subprocess.run(commands[kind], check=True, capture_output=True)
    if kind == "xfs":
        mount = path.with_suffix(".mount")
        mount.mkdir()
        subprocess.run(["mount", "-o", "loop", path, mount], check=True)
        subprocess.run(["cp", "-a", f"{tree}/.", mount], check=True)
        subprocess.run(["umount", mount], check=True)
    return path


def assemble(image: Path, *parts: Path, label: str = "gpt") -> Path:
    """Make a disk with an EFI system partition of 4 MiB and the file systems after it."""
    image.touch()
    sizes = [-(-part.stat().st_size // (4 * MIB)) * 4 for part in parts]
    os.truncate(image, (12 + sum(sizes)) * MIB)
    script = f"label: {label}\nsize=4MiB, type={ESP if label == 'gpt' else 'ef'}\n"
    start = START
    for size in sizes:
        script += f"start={start // 512}, size={size}MiB, type=linux\n"
        start += size * MIB
    subprocess.run(["/usr/sbin/sfdisk", "--quiet", image], input=script.encode(), check=True)
    with_loader(image, "BOOTX64.EFI")
    start = START
    for part, size in zip(parts, sizes, strict=True):
        subprocess.run(
            ["dd", f"if={part}", f"of={image}", "bs=1M", f"seek={start // MIB}", "conv=notrunc,sparse", "status=none"],
            check=True,
        )
        start += size * MIB
    return image


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "squashfs", "erofs"])
def test_a_system_is_found_on_every_file_system(tmp_path: Path, kind: str) -> None:
    root = make_file_system(tmp_path / "root", kind, make_tree(tmp_path / "tree"))
    image = assemble(tmp_path / "image", root)
    before = digest(image)
    with disk_tree(str(image)) as (directory, disk):
        assert Path(directory, "etc/os-release").read_text() == "ID=debian\nVERSION_ID=12\n"
        assert Path(directory, "boot/efi/EFI/BOOT/BOOTX64.EFI").read_bytes() == b"MZ"
        assert [(volume.contents and volume.contents.kind, volume.target) for volume in disk.volumes] == [
            ("vfat", "/boot/efi"),
            (kind, "/"),
        ]
        assert (disk.reader, disk.layout.generations, disk.vhd_violations) == ("kernel", ("V2",), None)
        with pytest.raises(OSError, match="Read-only"):
            Path(directory, "etc/new").touch()
    assert not os.path.exists(directory)
    assert digest(image) == before
    assert str(image) not in subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("image_format", ["qcow2", "vpc", "vhdx", "vmdk"])
def test_formats_are_told_and_read(tmp_path: Path, image_format: str) -> None:
    root = make_file_system(tmp_path / "root", "ext4", make_tree(tmp_path / "tree"))
    options = ("-o", "subformat=fixed,force_size=on") if image_format == "vpc" else ()
    image = convert(assemble(tmp_path / "image", root), image_format, *options)
    with disk_tree(str(image)) as (directory, disk):
        assert Path(directory, "etc/os-release").exists()
        assert disk.format.driver == image_format
        assert disk.vhd_violations == (() if image_format == "vpc" else None)


def test_a_wrong_footer_is_told_and_the_disk_is_read(tmp_path: Path) -> None:
    root = make_file_system(tmp_path / "root", "ext4", make_tree(tmp_path / "tree"))
    image = convert(assemble(tmp_path / "image", root), "vpc", "-o", "subformat=fixed,force_size=on")
    with image.open("r+b") as disk:
        disk.seek(-512 + 60, os.SEEK_END)
        disk.write(bytes([0, 0, 0, 3]))
    with disk_tree(str(image)) as (directory, told):
        assert Path(directory, "etc/os-release").exists()
        assert [violation.field for violation in told.vhd_violations or ()] == ["disk type", "checksum"]


def test_other_file_systems_stand_where_fstab_wants_them(tmp_path: Path) -> None:
    fstab = "LABEL=boot /boot ext4 defaults 0 1\n/dev/sr0 /mnt iso9660 noauto 0 0\nUUID=gone /home ext4 defaults 0 0\n"
    root = make_file_system(tmp_path / "root", "ext4", make_tree(tmp_path / "tree", fstab))
    (tmp_path / "kernels/efi").mkdir(parents=True)
    (tmp_path / "kernels/vmlinuz-6.1").write_text("kernel")
    boot = make_file_system(tmp_path / "boot", "ext4", tmp_path / "kernels", 8 * MIB)
    subprocess.run(["/usr/sbin/e2label", boot, "boot"], check=True)
    with disk_tree(str(assemble(tmp_path / "image", boot, root, label="dos"))) as (directory, disk):
        assert Path(directory, "boot/vmlinuz-6.1").read_text() == "kernel"
        assert Path(directory, "boot/efi/EFI/BOOT/BOOTX64.EFI").exists()
        assert [volume.target for volume in disk.volumes] == ["/boot/efi", "/boot", "/"]


def test_a_subvolume_is_the_root(tmp_path: Path) -> None:
    path, mount = tmp_path / "root", tmp_path / "mount"
    path.touch()
    os.truncate(path, 112 * MIB)
    subprocess.run(["/usr/sbin/mkfs.btrfs", "-q", "-L", "sys", path], check=True, capture_output=True)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", path, mount], check=True)
    for name in ("@", "@home"):
        subprocess.run(["btrfs", "subvolume", "create", mount / name], check=True, capture_output=True)
    fstab = "LABEL=sys / btrfs subvol=@ 0 0\nLABEL=sys /home btrfs subvol=@home 0 0\n"
    subprocess.run(["cp", "-a", f"{make_tree(tmp_path / 'tree', fstab)}/.", mount / "@"], check=True)
    (mount / "@home/user").mkdir()
    subprocess.run(["umount", mount], check=True)
    with disk_tree(str(assemble(tmp_path / "image", path))) as (directory, _):
        assert Path(directory, "etc/os-release").exists()
        assert Path(directory, "home/user").is_dir()


def test_a_journal_is_not_replayed(tmp_path: Path) -> None:
    root = make_file_system(tmp_path / "root", "ext4", make_tree(tmp_path / "tree"))
    mount, dirty = tmp_path / "mount", tmp_path / "dirty"
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", root, mount], check=True)
    (mount / "etc/late").touch()
    subprocess.run(["sync", "--file-system", mount], check=True)
    subprocess.run(["cp", root, dirty], check=True)  # as a power cut leaves it
    subprocess.run(["umount", mount], check=True)
    assert b"needs_recovery" in subprocess.run(["/usr/sbin/dumpe2fs", "-h", dirty], capture_output=True).stdout
    image = assemble(tmp_path / "image", dirty)
    before = digest(image)
    with disk_tree(str(image)) as (directory, _):
        assert Path(directory, "etc/os-release").exists()
    assert digest(image) == before


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"LUKS\xba\xbe\0\2", "LUKS"),
        (bytes(512) + b"LABELONE" + bytes(16) + b"LVM2 001", "LVM"),
        (bytes(4096) + bytes.fromhex("fc4e2ba901000000"), "md"),
        (bytes(1024) + bytes.fromhex("1020f5f2"), "f2fs"),
        (b"", "nothing known"),
    ],
)
def test_what_cannot_be_entered_is_named_with_both_ways_out(tmp_path: Path, content: bytes, named: str) -> None:
    part = tmp_path / "part"
    part.write_bytes(content.ljust(8 * MIB, b"\0"))
    with pytest.raises(ProvisioningError) as caught, disk_tree(str(assemble(tmp_path / "image", part))):
        pass
    assert caught.value.reason is Reason.IMAGE_UNREADABLE
    assert f"partition 2: {named}" in caught.value.data["detail"]
    assert "root" in caught.value.data["hint"]
    assert "guestmount" in caught.value.data["hint"]


def test_an_esp_that_has_no_place_in_the_system_is_told(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    (tree / "boot/efi").rmdir()
    (tree / "boot/vmlinuz").write_text("kernel")
    image = assemble(tmp_path / "image", make_file_system(tmp_path / "root", "ext4", tree))
    with disk_tree(str(image)) as (_, disk):
        esp = disk.volumes[0]
    assert esp.target is None
    assert esp.unread is not None
    assert "no empty /boot/efi" in esp.unread


def disk_with_boot(directory: Path, tree: Path) -> Path:
    """Make a disk with the tree and, behind it, an empty file system that is called boot."""
    root = make_file_system(directory / "root", "ext4", tree)
    (directory / "kernels").mkdir()
    boot = make_file_system(directory / "boot", "ext4", directory / "kernels", 8 * MIB)
    subprocess.run(["/usr/sbin/e2label", boot, "boot"], check=True)
    return assemble(directory / "image", root, boot)


def test_a_link_leads_to_nothing_of_this_machine(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", "LABEL=boot /boot ext4 defaults 0 1\n")
    (tree / "boot/efi").rmdir()
    (tree / "boot").rmdir()
    (tree / "boot").symlink_to("/etc")
    (tree / "efi").symlink_to("../../../../../root")
    with disk_tree(str(disk_with_boot(tmp_path, tree))) as (directory, disk):
        assert os.path.isdir("/etc/ssl")
        assert disk.volumes[2].target == "/boot"
        assert os.path.ismount(f"{directory}/etc")


def test_links_that_go_round_are_no_place(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", "LABEL=boot /boot ext4 defaults 0 1\n")
    (tree / "boot/efi").rmdir()
    (tree / "boot").rmdir()
    (tree / "boot").symlink_to("boot")
    (tree / "ostree").symlink_to("ostree")
    with disk_tree(str(disk_with_boot(tmp_path, tree))) as (_, disk):
        assert "Too many levels of symbolic links" in (disk.volumes[2].unread or "")


def test_a_file_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    (tree / "boot/vmlinuz-6.1").write_bytes(b"kernel" * 1000)
    root = make_file_system(tmp_path / "root", "ext4", tree)
    # A block of it that is beyond the end of the file system.
    for command in ("sif /boot/vmlinuz-6.1 flags 0", "sif /boot/vmlinuz-6.1 block[0] 99999999"):
        subprocess.run(["/usr/sbin/debugfs", "-w", "-R", command, root], check=True, capture_output=True)
    with disk_tree(str(assemble(tmp_path / "image", root))) as (directory, disk):
        outcome = run_checks(Subject(Tree(directory), disk))
    unknown = [finding for finding in outcome.findings if finding.severity is Severity.UNKNOWN]
    assert [finding.file for finding in unknown if finding.id == "kernel-hyperv"] == ["/boot/vmlinuz-6.1"]


def test_a_place_for_temporary_files_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    (tmp_path / "image").write_bytes(bytes(MIB))
    with pytest.raises(ProvisioningError) as caught, disk_tree(str(tmp_path / "image")):
        pass
    assert caught.value.reason is Reason.OUTPUT_FAILED


@pytest.mark.parametrize("damage", [0, 1024, 4096, 65536])
def test_a_damaged_file_system_is_an_error(tmp_path: Path, damage: int) -> None:
    root = make_file_system(tmp_path / "root", "ext4", make_tree(tmp_path / "tree"))
    with root.open("r+b") as disk:
        disk.seek(damage)
        disk.write(os.urandom(16384))
    try:
        with disk_tree(str(assemble(tmp_path / "image", root))) as (directory, _):
            assert directory
    except ProvisioningError as error:
        assert error.reason is Reason.IMAGE_UNREADABLE


def test_check_judges_an_image(tmp_path: Path) -> None:
    root = make_file_system(tmp_path / "root", "ext4", make_tree(tmp_path / "tree"))
    image = assemble(tmp_path / "image", root)
    command = [sys.executable, "-m", "minprov", "check", str(image), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "minprov/check/1"
    assert str(image) in done.stdout


def test_an_image_that_fails_its_checks_is_not_booted(tmp_path: Path) -> None:
    root = make_file_system(tmp_path / "root", "ext4", make_tree(tmp_path / "tree"))
    image = assemble(tmp_path / "image", root)
    command = [sys.executable, "-m", "minprov.emulator", "boot", "--check", str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert " fail, " in done.stdout.splitlines()[-1]
    assert done.stderr == "not booted: put right what fails, or leave --check out\n"


def test_without_root_the_way_out_is_named(tmp_path: Path) -> None:
    root = make_file_system(tmp_path / "root", "ext4", make_tree(tmp_path / "tree"))
    image = assemble(tmp_path / "image", root)
    image.chmod(0o644)
    program = (
        "import encodings.utf_16_le, os, sys, minprov.cli, minprov.commands.check, minprov.image.disk; os.setuid(65534)"
    )
    program += f"; sys.exit(minprov.cli.run(['check', {str(image)!r}]))"
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == os.EX_UNAVAILABLE, done.stderr
    assert "run as root" in done.stderr
    assert "guestmount" in done.stderr


@pytest.mark.parametrize(("limit", "said"), [(1 << 30, None), (1000, "mtype: more than 1000 bytes")])
def test_a_copy_of_an_esp_is_bounded(
    limit: int, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minprov.image.esp.MAX_BYTES", limit)
    image = assemble(tmp_path / "image")
    (tmp_path / "large").write_bytes(bytes(2000))
    subprocess.run(["mcopy", "-i", f"{image}@@{MIB}", tmp_path / "large", "::/large"], check=True)
    target = tmp_path / "target"
    if said is None:
        copy_esp(str(image), MIB, str(target))
        assert (target / "large").stat().st_size == 2000
        assert (target / "EFI/BOOT/BOOTX64.EFI").read_bytes() == b"MZ"
    else:
        with pytest.raises(ProvisioningError) as caught:
            copy_esp(str(image), MIB, str(target))
        assert said in str(caught.value)


def test_a_copy_of_an_esp_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    image = assemble(tmp_path / "image")
    target = tmp_path / "target"
    target.mkdir()
    (target / "EFI").touch()  # as where a name is a file's and a directory's
    with pytest.raises(ProvisioningError) as caught:
        copy_esp(str(image), MIB, str(target))
    assert "EFI/BOOT/BOOTX64.EFI: Not a directory" in str(caught.value)
