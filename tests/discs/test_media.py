"""The media is found wherever it may be, its files arrive byte for byte, and what is in the way is told by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from minprov.discs.drive import eject
from minprov.discs.reader import Media, read_media
from minprov.discs.search import Surroundings, find_media
from minprov.errors import ProvisioningError, Reason
from minprov.media import read_ovf_env
from tests.discs.media_samples import content
from tests.discs.test_iso9660 import write_volume as write_iso9660
from tests.discs.udf_surgery import ANCHOR, FILE_ENTRY, tags
from tests.discs.udf_writer import write_volume as write_udf
from tests.faulty import faulty_file, loop_device

if TYPE_CHECKING:
    from pathlib import Path

OVF_ENV = b'<?xml version="1.0" encoding="utf-8"?>\n<Environment/>\n'
CUSTOM_DATA = content("CustomData.bin", 65535)
FILES = {"ovf-env.xml": OVF_ENV, "CustomData.bin": CUSTOM_DATA}
UDF = write_udf(FILES)
FOREIGN = b"<Environment>of another platform</Environment>"

needs_genisoimage = pytest.mark.skipif(shutil.which("genisoimage") is None, reason="genisoimage is not installed")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def write_tree(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        write(path / name, data)
    return path


def fault_of(path: Path | str) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        read_media(str(path))
    return caught.value


# --- what a path may be -----------------------------------------------------------------------------------------------


def test_an_image_file_is_read(tmp_path: Path) -> None:
    for image, volume in ((UDF, "UDF 1.02"), (write_iso9660(FILES, joliet=3), "ISO 9660 with Joliet")):
        path = write(tmp_path / "image", image)
        media = read_media(str(path))
        assert (media.ovf_env, media.custom_data) == (OVF_ENV, CUSTOM_DATA)
        assert (media.device, media.detail) == (None, f"{path}, {volume}")


def test_a_directory_is_read(tmp_path: Path) -> None:
    media = read_media(str(write_tree(tmp_path, FILES)))
    assert (media.ovf_env, media.custom_data) == (OVF_ENV, CUSTOM_DATA)
    assert (media.device, media.detail) == (None, f"{tmp_path}, directory")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_ovf_env_itself_is_read(tmp_path: Path, encoding: str) -> None:
    document = write(tmp_path / "anything.xml", "\r\n<Environment/>".encode(encoding))
    assert read_ovf_env(str(document)) == document.read_bytes()


@pytest.mark.root
def test_a_block_device_is_read(tmp_path: Path) -> None:
    with loop_device(write(tmp_path / "image", UDF)) as device:
        media = read_media(device)
    assert (media.ovf_env, media.custom_data) == (OVF_ENV, CUSTOM_DATA)
    assert (media.device, media.detail) == (device, f"{device}, UDF 1.02")


def test_a_disc_without_custom_data_has_none(tmp_path: Path) -> None:
    assert read_media(str(write_tree(tmp_path, {"ovf-env.xml": OVF_ENV}))).custom_data is None


def test_media_do_not_show_their_secrets(tmp_path: Path) -> None:
    media = read_media(str(write_tree(tmp_path, {"ovf-env.xml": b"<p>pa$$word</p>", "CustomData.bin": b"token"})))
    assert repr(media) == f"Media(device=None, detail='{tmp_path}, directory')"


@needs_genisoimage
def test_of_a_bridge_the_udf_side_is_read_and_the_other_one_stands_in_for_it(tmp_path: Path) -> None:
    image, tree = tmp_path / "image", write_tree(tmp_path / "tree", FILES)
    subprocess.run(["genisoimage", "-quiet", "-udf", "-J", "-o", image, tree], check=True)
    bridge = image.read_bytes()
    assert read_media(str(image)).detail == f"{image}, UDF 1.02"
    damaged = bridge
    for at in tags(bridge, ANCHOR):
        damaged = damaged[:at] + bytes(512) + damaged[at + 512 :]
    media = read_media(str(write(image, damaged)))
    assert (media.ovf_env, media.custom_data) == (OVF_ENV, CUSTOM_DATA)
    assert media.detail == f"{image}, ISO 9660 with Joliet"
    # With both sides damaged, the fault is that of the preferred one.
    neither = damaged.replace(b"\1CD001\1", b"\0CD001\1")
    assert "no anchor" in fault_of(write(image, neither)).data["fault"]


# --- what may be in the way -------------------------------------------------------------------------------------------


def test_a_missing_path_is_no_device(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", write(tmp_path / "file", b"") / "beneath"):
        fault = fault_of(path)
        assert fault.reason is Reason.MEDIA_NOT_FOUND
        assert fault.data == {"path": str(path), "detail": "no device"}


def test_a_disc_without_an_ovf_env_says_what_it_is(tmp_path: Path) -> None:
    fault = fault_of(write(tmp_path / "image", write_udf({"other": b""})))
    assert fault.reason is Reason.MEDIA_NOT_FOUND
    assert fault.data == {"path": str(tmp_path / "image"), "detail": "no ovf-env.xml", "volume": "UDF 1.02"}


@pytest.mark.parametrize("data", [b"", b"neither XML nor a volume", bytes(100_000)])
def test_a_file_that_is_no_volume_is_passed_over(tmp_path: Path, data: bytes) -> None:
    fault = fault_of(write(tmp_path / "image", data))
    assert (fault.reason, fault.data["detail"]) == (Reason.MEDIA_NOT_FOUND, "no UDF or ISO 9660 volume")


def test_a_corrupt_volume_is_refused_with_its_path(tmp_path: Path) -> None:
    path = write(tmp_path / "image", UDF[: tags(UDF, FILE_ENTRY)[0]])
    fault = fault_of(path)
    assert (fault.reason, fault.data["path"]) == (Reason.MEDIA_CORRUPT, str(path))


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.mkfifo(tmp_path / "ovf-env.xml")
    assert fault_of(tmp_path / "fifo").data["feature"] == "not a device, file or directory"
    assert fault_of(tmp_path).data == {"path": f"{tmp_path}/ovf-env.xml", "feature": "not a regular file"}
    assert fault_of("/dev/null").reason is Reason.MEDIA_UNSUPPORTED


def test_a_file_larger_than_any_on_a_disc_is_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, {"ovf-env.xml": b"<" + b" " * (1 << 20)})
    for path in (tree, tree / "ovf-env.xml"):
        assert fault_of(path).data["feature"] == "a file larger than any on a disc"


def test_a_link_in_a_directory_which_may_be_a_mounted_disc_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "of-root").write_bytes(OVF_ENV)
    (tmp_path / "disc").mkdir()
    (tmp_path / "disc/ovf-env.xml").symlink_to(tmp_path / "of-root")
    fault = fault_of(tmp_path / "disc")
    assert fault.reason is Reason.MEDIA_UNREADABLE
    assert fault.data == {"path": f"{tmp_path}/disc/ovf-env.xml", "detail": "Too many levels of symbolic links"}


@pytest.mark.root
@pytest.mark.parametrize("through", ["file", "device"])
def test_a_bad_sector_is_told_with_its_place(tmp_path: Path, through: str) -> None:
    """Also in the middle of a read, of which the kernel then returns the beginning."""
    at = UDF.index(CUSTOM_DATA) // 4096 * 4096 + 8192
    with faulty_file(tmp_path / "image", UDF, bad=[range(at, at + 1)]):
        if through == "file":
            fault = fault_of(tmp_path / "image")
        else:
            with loop_device(tmp_path / "image") as device:
                fault = fault_of(device)
    assert (fault.reason, fault.data["detail"]) == (Reason.MEDIA_UNREADABLE, "Input/output error")
    assert at - 65536 <= int(fault.data["offset"]) <= at


@pytest.mark.root
def test_a_path_that_may_not_be_read_is_told_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "image", UDF)
    os.seteuid(65534)
    try:
        fault = fault_of(path)
    finally:
        os.seteuid(0)
    assert (fault.reason, fault.data) == (
        Reason.NOT_PERMITTED,
        {"path": str(path), "detail": "Permission denied"},
    )


# --- discovery --------------------------------------------------------------------------------------------------------


class Place:
    """A directory of devices, a table of mounts, and a clock that only waiting moves."""

    def __init__(self, directory: Path) -> None:
        self.dev = directory / "dev"
        self.dev.mkdir()
        self.mountinfo = write(directory / "mountinfo", b"22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n")
        self.now = 0.0
        self.later: dict[float, tuple[str, bytes]] = {}

    def pause(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in self.later if moment <= self.now]:
            name, data = self.later.pop(moment)
            write(self.dev / name, data)

    def find(self, *paths: Path, wait: float = 0) -> Media:
        surroundings = Surroundings(dev=str(self.dev), mountinfo=str(self.mountinfo), pause=self.pause)
        return find_media(
            [str(path) for path in paths],
            accept=self.accept,
            give_up=lambda: self.now >= wait,
            surroundings=surroundings,
        )

    def fault(self, *paths: Path, wait: float = 0) -> ProvisioningError:
        with pytest.raises(ProvisioningError) as caught:
            self.find(*paths, wait=wait)
        return caught.value

    def accept(self, ovf_env: bytes) -> None:
        if ovf_env == FOREIGN:
            raise ProvisioningError(Reason.OVF_FOREIGN)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("name", ["sr0", "sr9", "hdc", "cdrom0", "cd0", "vdb", "vdz"])
def test_a_drive_is_known_by_its_name(place: Place, name: str) -> None:
    write(place.dev / name, UDF)
    assert place.find().detail == f"{place.dev}/{name}, UDF 1.02"


@pytest.mark.parametrize("name", ["sda", "hdb", "vda", "vdb1", "sr", "sr00", "xsr0", "cdrom", "loop0"])
def test_what_is_no_drive_is_left_alone(place: Place, name: str) -> None:
    write(place.dev / name, UDF)
    assert place.fault().data["detail"] == "no device"


def test_optical_drives_come_before_disks(place: Place) -> None:
    for name in ("cdrom1", "hdd", "sr1", "vdb"):
        write(place.dev / name, UDF)
    order = []
    for name in ("sr1", "hdd", "cdrom1", "vdb"):
        order.append(place.find().detail.split(",")[0].split("/")[-1])
        (place.dev / name).unlink()
    assert order == ["sr1", "hdd", "cdrom1", "vdb"]


def test_a_foreign_disc_is_passed_over_and_not_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place.dev / "sr0", write_udf({"ovf-env.xml": FOREIGN}))
    (place.dev / "cdrom0").symlink_to("sr0")
    place.later = {1.0: ("sr1", UDF)}
    judged = []

    def accept(ovf_env: bytes) -> None:
        judged.append(ovf_env)
        Place.accept(place, ovf_env)

    monkeypatch.setattr(place, "accept", accept)
    assert place.find(wait=5).ovf_env == OVF_ENV
    assert judged == [FOREIGN, OVF_ENV]


def test_an_ovf_env_that_is_ours_and_bad_is_not_passed_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(_: bytes) -> None:
        raise ProvisioningError(Reason.OVF_INVALID, element="HostName")

    write(place.dev / "sr0", UDF)
    monkeypatch.setattr(place, "accept", accept)
    assert place.fault(wait=5).reason is Reason.OVF_INVALID
    assert place.now == 0


def test_a_late_drive_is_waited_for(place: Place) -> None:
    place.later = {3.0: ("sr0", UDF)}
    assert place.find(wait=5).ovf_env == OVF_ENV
    assert 3 <= place.now < 3.2


def test_the_wait_has_an_end(place: Place) -> None:
    place.later = {5.5: ("sr0", UDF)}
    fault = place.fault(wait=5)
    assert (fault.reason, fault.data) == (Reason.MEDIA_NOT_FOUND, {"path": str(place.dev), "detail": "no device"})
    assert 5 <= place.now < 5.2


def test_without_devices_there_is_no_device(place: Place) -> None:
    place.dev.rmdir()
    assert place.fault().data["detail"] == "no device"


def test_named_paths_are_tried_in_order_and_nothing_else_is(place: Place, tmp_path: Path) -> None:
    write(place.dev / "sr0", UDF)
    foreign = write(tmp_path / "foreign.xml", FOREIGN)
    first = write(tmp_path / "first.xml", b"<first/>")
    second = write(tmp_path / "second.xml", b"<second/>")
    assert place.find(foreign, first, second).ovf_env == b"<first/>"
    assert place.fault(foreign).reason is Reason.OVF_FOREIGN


def test_named_paths_that_cannot_get_better_are_not_waited_for(place: Place, tmp_path: Path) -> None:
    foreign, corrupt = write(tmp_path / "foreign.xml", FOREIGN), write(tmp_path / "image", UDF[:600_000])
    assert place.fault(foreign, corrupt, wait=5).reason is Reason.MEDIA_CORRUPT
    assert place.now == 0
    place.fault(foreign, tmp_path / "missing", wait=5)
    assert place.now >= 5


def test_the_most_telling_fault_is_told(place: Place, tmp_path: Path) -> None:
    write(place.dev / "vdb", bytes(100_000))
    assert place.fault().data["detail"] == "no UDF or ISO 9660 volume"
    write(place.dev / "vdc", write_udf({}))
    assert place.fault().data["detail"] == "no ovf-env.xml"
    write(place.dev / "vdd", write_udf({"ovf-env.xml": FOREIGN}))
    assert place.fault().reason is Reason.OVF_FOREIGN
    os.mkfifo(place.dev / "vde")
    assert place.fault().reason is Reason.MEDIA_UNSUPPORTED
    write(place.dev / "vdf", UDF[:600_000])
    assert place.fault().reason is Reason.MEDIA_CORRUPT


def mount_line(mount_point: Path, kind: str, source: str) -> bytes:
    escaped = str(mount_point).replace(" ", "\\040")
    return f"36 22 11:0 / {escaped} ro,nosuid shared:7 - {kind} {source} ro\n".encode()


@pytest.mark.parametrize("kind", ["udf", "iso9660"])
def test_a_mounted_disc_is_read_where_it_is(place: Place, tmp_path: Path, kind: str) -> None:
    mount_point = write_tree(tmp_path / "mount point", FILES)
    place.mountinfo.write_bytes(place.mountinfo.read_bytes() + mount_line(mount_point, kind, "/dev/sr0"))
    write(place.dev / "sr0", write_udf({"ovf-env.xml": b"<not-this/>"}))
    media = place.find()
    assert (media.ovf_env, media.custom_data) == (OVF_ENV, CUSTOM_DATA)
    assert (media.device, media.detail) == ("/dev/sr0", f"{mount_point}, directory")


def test_other_mounts_are_left_alone(place: Place, tmp_path: Path) -> None:
    mount_point = write_tree(tmp_path / "mount", FILES)
    place.mountinfo.write_bytes(mount_line(mount_point, "ext4", "/dev/sdb1"))
    assert place.fault().data["detail"] == "no device"


def test_without_its_own_surroundings_the_machine_itself_is_searched() -> None:
    try:
        detail = find_media([]).detail
    except ProvisioningError as error:
        detail = str(error)
    assert "/dev" in detail


# Looks for the media until it is told to stop, and ends as the program does.
PROGRAM = """
import asyncio, os, sys
from minprov.machine.child_process import in_child_process
from minprov.discs.search import find_media

async def main():
    task = asyncio.create_task(in_child_process(lambda: find_media(sys.argv[1:])))
    await asyncio.to_thread(sys.stdin.readline)
    print("done" if task.done() else "still waiting", flush=True)
    task.cancel()
    await asyncio.wait([task])
    os._exit(0)

asyncio.run(main())
"""


@pytest.mark.root
@pytest.mark.parametrize("through", ["file", "device"])
def test_a_drive_that_never_answers_does_not_hold_the_program(tmp_path: Path, through: str) -> None:
    """Not even when it holds the reading process against the signal that kills."""
    at = UDF.index(CUSTOM_DATA)
    with faulty_file(tmp_path / "faulty", UDF, stuck=[range(at, at + 1)]) as faulty, ExitStack() as stack:
        path = tmp_path / "faulty" if through == "file" else stack.enter_context(loop_device(tmp_path / "faulty"))
        argv = [sys.executable, "-c", PROGRAM, str(path)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
            assert faulty.blocked.wait(20), "the drive was asked"
            output, _ = program.communicate("\n", timeout=20)
        faulty.give_up()
    assert (output, program.returncode) == ("still waiting\n", 0)


# --- eject ------------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_what_has_no_tray_refuses_to_open_it(tmp_path: Path) -> None:
    with loop_device(write(tmp_path / "image", UDF)) as device, pytest.raises(ProvisioningError) as caught:
        eject(device)
    assert (caught.value.reason, caught.value.data["path"]) == (Reason.MEDIA_UNREADABLE, device)


def test_a_missing_drive_cannot_be_ejected(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError, match="no device"):
        eject(str(tmp_path / "sr0"))
