"""The kernel reads what the readers do not, and nothing of it remains."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from minprov.discs import kernel_mount
from minprov.discs.reader import read_media
from minprov.errors import ProvisioningError, Reason
from tests.discs.test_media import write, write_tree
from tests.discs.test_udf import unpacked
from tests.faulty import loop_device

FILES = {"ovf-env.xml": b"<Environment/>", "CustomData.bin": bytes(range(256)) * 256}
LIMITS = {"ovf-env.xml": 1 << 20, "CustomData.bin": 128 << 10}

pytestmark = pytest.mark.root


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return the image of a file system that the kernels of all machines have, for few have udf."""
    return make_ext4(tmp_path / "image", write_tree(tmp_path / "tree", FILES))


def make_ext4(image: Path, tree: Path) -> Path:
    image.touch()
    os.truncate(image, 2 << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, image], check=True)
    return image


def fault_of(device: str, file_system: str = "ext4", limits: dict[str, int] = LIMITS) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        kernel_mount.read_files(device, file_system, limits)
    assert caught.value.reason is Reason.MEDIA_UNREADABLE
    return caught.value


def test_the_files_arrive_byte_for_byte(image: Path) -> None:
    with loop_device(image) as device:
        assert kernel_mount.read_files(device, "ext4", {**LIMITS, "missing": 1}) == FILES


def test_no_mount_remains(image: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    with loop_device(image) as device:
        kernel_mount.read_files(device, "ext4", LIMITS)
        fault_of(device, limits={"ovf-env.xml": 1})
        assert Path("/proc/self/mountinfo").read_text() == mounts
        # Nobody else holds the device: it can be had for itself.
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))


def test_the_answer_of_the_kernel_is_told(image: Path) -> None:
    with loop_device(image) as device:
        assert fault_of("/dev/missing").data["detail"] == "No such file or directory"
        assert fault_of(device, "no-such-fs").data == {"path": device, "detail": "No such device"}
        assert fault_of(device, "xfs").data["detail"] == "Invalid argument"
        assert (
            fault_of(device, limits={"CustomData.bin": 65535}).data["detail"]
            == "CustomData.bin is larger than 65535 bytes"
        )


def test_a_link_on_the_disc_leads_nowhere(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {})
    (tree / "ovf-env.xml").symlink_to("/etc/passwd")
    with loop_device(make_ext4(tmp_path / "image", tree)) as device:
        assert fault_of(device).data["detail"] == "Too many levels of symbolic links"


def test_what_is_refused_by_name_is_offered_to_the_kernel(tmp_path: Path) -> None:
    """Where that has no udf, its answers are in the refusal. Where it has, test_media_vm.py sees the files."""
    image = write(tmp_path / "image", unpacked("udf-1.50-virtual.img"))
    with loop_device(image) as device, pytest.raises(ProvisioningError) as caught:
        read_media(device)
    if caught.value.reason is Reason.MEDIA_UNSUPPORTED:
        assert caught.value.data["feature"] == "*UDF Virtual Partition"
        assert caught.value.data["kernel"].startswith("udf: ")
    else:
        assert caught.value.data["volume"].startswith("udf by the kernel")


def test_an_image_file_is_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError) as caught:
        read_media(str(write(tmp_path / "image", unpacked("udf-1.50-virtual.img"))))
    assert "kernel" not in caught.value.data
