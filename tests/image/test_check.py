"""Checks find what people's images have wrong, and nothing in good ones; the trees are data."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from minprov.cli import run
from minprov.errors import Reason
from minprov.formats.disk_image import ImageFormat
from minprov.formats.partitions import ESP, Partition, PartitionTable
from minprov.formats.superblocks import Superblock
from minprov.formats.vhd_footer import Violation
from minprov.image.checks.outcome import CHECKS, run_checks
from minprov.image.layout import Layout
from minprov.image.model import Disk, Volume
from minprov.image.subject import Purpose, Subject
from minprov.image.tree import Tree
from tests.image.recorded import TREES, add_part, make_tree, write_entry

DEFECTS = tomllib.loads((Path(__file__).parent / "defects.toml").read_text())["defect"]
FAMILIES = sorted(path.stem for path in TREES.glob("*.tree"))


def check(root: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = run(["check", "--root", str(root), "--json", *arguments])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, document


@pytest.mark.parametrize("family", FAMILIES)
def test_a_good_image_has_no_finding(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree(family, tmp_path)
    status, document = check(tmp_path, capsys)
    wrong = [finding for finding in document["findings"] if finding["severity"] != "told"]
    assert (status, wrong) == (0, [])


@pytest.mark.parametrize(
    "lacking", ["", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/bin/udevadm", "/usr/bin/tail"]
)
def test_all_duties_find_what_they_need(lacking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    add_part("duties", tmp_path)
    if lacking:
        (tmp_path / lacking.lstrip("/")).unlink()
    _, document = check(tmp_path, capsys)
    assert [finding["id"] for finding in document["findings"]] == ["duties"] * bool(lacking)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect["name"])
def test_a_defect_is_found(defect: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree(defect.get("in", "debian"), tmp_path)
    for path in defect.get("remove", []):
        (tmp_path / path.lstrip("/")).unlink()
    for path, (old, new) in defect.get("replace", {}).items():
        file = tmp_path / path.lstrip("/")
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
    for head, body in defect.get("write", {}).items():
        write_entry(tmp_path, head, body + "\n" if body else "")
    status, document = check(tmp_path, capsys, *defect.get("arguments", []))
    found = [finding for finding in document["findings"] if finding["id"] == defect["finds"]]
    assert [finding["severity"] for finding in found] == [defect["severity"]] * len(found)
    assert found
    assert status == (defect["severity"] == "fails")
    if "file" in defect:
        assert found[0]["file"] == defect["file"]
    if "line" in defect:
        assert found[0]["line"] == defect["line"]
    assert defect.get("what", "") in found[0]["what"]
    assert found[0]["why"]
    assert found[0]["source"]
    others = {finding["id"] for finding in document["findings"] if finding["severity"] in ("fails", "unknown")}
    assert others <= {defect["finds"], *defect.get("also", [])}


DISK = Disk(
    path="image.vhd",
    format=ImageFormat.VHD,
    size=30 << 30,
    file_size=(30 << 30) + 512,
    vhd_violations=(),
    table=PartitionTable("gpt", (), has_boot_code=True),
    layout=Layout(("V2", "V1"), "x64", ()),
    volumes=(Volume(Partition(1, 1 << 20, 29 << 30, ESP), Superblock("ext4"), "/"),),
    reader="kernel",
)
PARTITION = Partition(2, 29 << 30, 1 << 30, "82")
DISK_DEFECTS = [
    ("vhd", "fails", DISK._replace(vhd_violations=(Violation("disk type", "3", "2"),)), None, "disk type is 3"),
    ("vhd", "fails", DISK._replace(vhd_violations=None, format=ImageFormat.RAW), None, "is raw: it has no footer"),
    ("generations", "fails", DISK._replace(layout=Layout((), None, ("no boot code",))), None, "neither generation"),
    ("generations", "fails", DISK._replace(layout=Layout(("V1",), None, ())), 2, "generation 2 does not start"),
    ("generations", "risk", DISK._replace(table=PartitionTable("gpt", (), faults=("damaged",))), None, "damaged"),
    ("generations", "told", DISK, None, "generation 2 and 1"),
    ("disk-layers", "advice", DISK._replace(volumes=(Volume(PARTITION, Superblock("LVM")),)), None, "2 is LVM"),
    ("disk-layers", "risk", DISK._replace(volumes=(Volume(PARTITION, Superblock("LUKS")),)), None, "2 is LUKS"),
    (
        "disk-layers",
        "unknown",
        DISK._replace(volumes=(Volume(PARTITION, None, unread="no driver"),)),
        None,
        "no driver",
    ),
    ("swap-os-disk", "risk", DISK._replace(volumes=(Volume(PARTITION, Superblock("swap")),)), None, "2 is swap"),
    ("fstab", "fails", DISK, None, "/ is on UUID=3255683f-53a2-4fdf-91cf-b4c1041e2a62, which no partition"),
    ("secure-boot", "unknown", DISK, None, "no boot loader for UEFI"),
    ("nvme", "fails", DISK._replace(layout=Layout(("V1",), None, ())), "nvme", "generation 2 alone"),
]


@pytest.mark.parametrize(("name", "severity", "disk", "purpose", "what"), DISK_DEFECTS)
def test_a_defect_of_a_disk_is_found(
    name: str, severity: str, disk: Disk, purpose: int | str | None, what: str, tmp_path: Path
) -> None:
    make_tree("debian", tmp_path)
    generation = purpose if isinstance(purpose, int) else None
    outcome = run_checks(Subject(Tree(str(tmp_path)), disk, Purpose(generation, nvme=purpose == "nvme")))
    found = [finding for finding in outcome.findings if finding.id == name]
    assert (severity, True) in [(finding.severity.value, what in finding.what) for finding in found]


@pytest.mark.parametrize(
    ("contents", "spec"),
    [
        (Superblock("ext4", "3255683F-53a2"), "UUID=3255683f-53A2"),
        (Superblock("ext4", label="root"), "LABEL=root"),
        (Superblock("ext4"), "PARTUUID=0bad-02"),
        (Superblock("LVM"), "UUID=1"),  # what is on it is not known
        (None, "UUID=1"),
    ],
)
def test_a_tag_of_the_disk_is_no_finding(contents: Superblock | None, spec: str, tmp_path: Path) -> None:
    make_tree("debian", tmp_path)
    (tmp_path / "etc/fstab").write_text(f"{spec} / ext4 x-systemd.growfs 0 1\n")
    disk = DISK._replace(volumes=(Volume(PARTITION._replace(uuid="0bad-02"), contents),))
    outcome = run_checks(Subject(Tree(str(tmp_path)), disk))
    assert [finding for finding in outcome.findings if finding.id == "fstab"] == []


def test_every_check_has_a_defect_that_it_finds() -> None:
    found = {defect["finds"] for defect in DEFECTS} | {name for name, *_ in DISK_DEFECTS}
    assert {check.id for check in CHECKS} == found


def test_every_family_has_a_good_tree_and_bad_ones() -> None:
    assert {defect.get("in", "debian") for defect in DEFECTS} == set(FAMILIES)


def test_ids_are_used_once() -> None:
    ids = [check.id for check in CHECKS]
    assert len(ids) == len(set(ids))


def test_the_target_after_ready_starts_minprov_unless_it_is_masked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree("debian", tmp_path)
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    (wants / "minprov.service").unlink()
    (wants / "minprov-ready.target").symlink_to("/usr/lib/systemd/system/minprov-ready.target")
    assert check(tmp_path, capsys)[1]["findings"] == []
    (tmp_path / "etc/systemd/system/minprov.service").symlink_to("/dev/null")
    assert [finding["id"] for finding in check(tmp_path, capsys)[1]["findings"]] == ["agents"]


def test_an_ignored_check_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    status, document = check(tmp_path, capsys, "--ignore", "machine-id")
    assert (status, document["findings"], document["ignored"]) == (0, [], ["machine-id"])


def test_the_image_itself_may_ignore_a_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    write_entry(tmp_path, "/etc/minprov/minprov.toml", 'check.ignore = ["machine-id"]\n')
    status, document = check(tmp_path, capsys)
    assert (status, document["findings"], document["ignored"]) == (0, [], ["machine-id"])


def test_kernels_without_a_boot_loader_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    (tmp_path / "boot/grub/grub.cfg").unlink()
    write_entry(tmp_path, "/boot/initrd.img-6.1.0-27-cloud-amd64 initramfs zstd", "bin/sh\n")
    _, document = check(tmp_path, capsys)
    found = {finding["id"]: finding["severity"] for finding in document["findings"]}
    assert found == {"initramfs-hyperv": "fails", "nvme": "risk", "console": "unknown"}


def test_an_unknown_id_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    assert run(["check", "--root", str(tmp_path), "--ignore", "machine-idd"]) == Reason.USAGE.exit_status
    assert "machine-idd" in capsys.readouterr().err


def test_a_directory_without_a_system_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--root", str(tmp_path)]) == Reason.USAGE.exit_status
    assert "no system in it" in capsys.readouterr().err


def test_text_has_what_fails_first_and_a_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    grub = tmp_path / "boot/grub/grub.cfg"
    grub.write_text(grub.read_text().replace("ro console", "ro quiet console"))
    assert run(["check", "--root", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert text.index("machine-id:") < text.index("quiet:")
    assert "/boot/grub/grub.cfg:4: quiet" in text
    assert f"1 fails, 1 piece of advice; {len(CHECKS) - 2} of {len(CHECKS)} checks passed" in text


def test_junit_has_a_case_for_each_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from defusedxml.ElementTree import parse

    make_tree("debian", tmp_path)
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    report = tmp_path / "report.xml"
    assert run(["check", "--root", str(tmp_path), "--junit", str(report)]) == 1
    suite = parse(report).getroot()
    assert suite is not None
    assert suite.get("tests") == str(len(CHECKS))
    assert [case.get("name") for case in suite if case.find("failure") is not None] == ["machine-id"]


def test_the_list_has_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--list"]) == 0
    text = capsys.readouterr().out
    assert all(f"{check.id} (" in text for check in CHECKS)


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("debian", tmp_path)
    missing = str(tmp_path / "no/report.xml")
    assert run(["check", "--root", str(tmp_path), "--junit", missing]) == Reason.OUTPUT_FAILED.exit_status
    assert missing in capsys.readouterr().err
