"""What is a machine's own goes before an image is made of it, and nothing else does."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from minprov.cli import run
from minprov.config import Options
from minprov.image.checks.outcome import LEFTOVERS, judge
from minprov.image.deprovision.carrying_out import carry_out
from minprov.image.deprovision.planning import IDS, Plan, Request, plan_deprovision
from minprov.image.deprovision.rules import Act, Phase
from minprov.image.subject import Subject
from minprov.image.tree import Tree
from minprov.machine.manifest import ACCOUNT, KEYS, PASSWORD, Effect, Manifest, build_manifest, digest
from minprov.machine.system import System
from minprov.properties import hooks
from tests.image.recorded import make_tree, write_entry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="deprovisioning needs root")

FOUND = {check.id for check in LEFTOVERS} | {"host-keys"}
# What the command tells of and leaves: nobody but the maker of the image knows whether it is wanted.
LEFT = {"build-users", "passwords", "first-boot-presets"}
DEFECTS = [
    defect
    for defect in tomllib.loads((Path(__file__).parent / "defects.toml").read_text())["defect"]
    if defect["finds"] in FOUND - LEFT
]


def deprovision(root: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command on a tree."""
    status = run(["deprovision", "--root", str(root), "--json", "--yes", *arguments])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, document


def contents_of(root: Path) -> dict[str, bytes | str]:
    """Return all files of a tree, and links."""
    found: dict[str, bytes | str] = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(root))] = os.readlink(path)
        elif path.is_file():
            found[str(path.relative_to(root))] = path.read_bytes()
    return found


def write(root: Path, path: str, text: str = "x\n") -> Path:
    """Write a file of the tree."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect["name"])
def test_what_the_check_finds_goes(defect: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every leftover that the check knows of is gone afterwards."""
    make_tree(defect.get("in", "debian"), tmp_path)
    for path in defect.get("remove", []):
        (tmp_path / path.lstrip("/")).unlink()
    for head, body in defect.get("write", {}).items():
        write_entry(tmp_path, head, body + "\n" if body else "")
    status, document = deprovision(tmp_path, capsys, "--without-manifest")
    assert status == 0
    assert document["items"]
    assert [finding["id"] for finding in document["leftovers"] if finding["id"] not in LEFT] == []


def test_a_clean_image_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that an image should have goes."""
    make_tree("debian", tmp_path)
    before = contents_of(tmp_path)
    status, document = deprovision(tmp_path, capsys, "--without-manifest")
    after = contents_of(tmp_path)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert (status, changed) == (0, {item["target"].lstrip("/") for item in document["items"]})
    assert changed <= {"etc/hostname"}


def test_the_machine_id_stays_an_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the file, or with `uninitialized`, systemd would apply presets."""
    make_tree("debian", tmp_path)
    write(tmp_path, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    deprovision(tmp_path, capsys, "--without-manifest")
    assert (tmp_path / "etc/machine-id").read_bytes() == b""


def test_a_dry_run_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan has the same items as the run."""
    make_tree("debian", tmp_path)
    write(tmp_path, "/root/.bash_history")
    before = contents_of(tmp_path)
    assert run(["deprovision", "--root", str(tmp_path), "--json", "--dry-run", "--without-manifest"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert contents_of(tmp_path) == before
    _, done = deprovision(tmp_path, capsys, "--without-manifest")
    assert planned["items"] == done["items"]
    assert (planned["outcome"], done["outcome"]) == ("planned", "deprovisioned")


@pytest.mark.parametrize("kept", ["histories", "machine-id", "host-keys", "hostname"])
def test_keep(kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is kept by its id is not in the plan."""
    make_tree("debian", tmp_path)
    write(tmp_path, "/root/.bash_history")
    write(tmp_path, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    write(tmp_path, "/etc/ssh/ssh_host_rsa_key")
    write(tmp_path, "/etc/hostname", "builder\n")
    _, document = deprovision(tmp_path, capsys, "--without-manifest", "--keep", kept)
    assert kept in IDS
    left = {"histories", "machine-id", "host-keys", "hostname"} - {item["id"] for item in document["items"]}
    assert left == {kept}


def test_a_link_of_a_user_leads_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A home directory is a user's: what is linked there stays, and the failure is told."""
    make_tree("debian", tmp_path)
    target = write(tmp_path, "/etc/precious/authorized_keys", "ssh-rsa AAAA image\n")
    home = tmp_path / "home/eve"
    home.mkdir(parents=True)
    (home / ".ssh").symlink_to("/etc/precious")
    os.chown(home, 4321, 4321)
    os.chown(home / ".ssh", 4321, 4321, follow_symlinks=False)
    status, document = deprovision(tmp_path, capsys, "--without-manifest")
    assert target.exists()
    assert status != 0
    assert [item["target"] for item in document["items"] if "error" in item] == ["/home/eve/.ssh/authorized_keys"]


@pytest.mark.parametrize("cut", range(12))
def test_cut_anywhere(cut: int, tmp_path: Path) -> None:
    """Whatever people log in with goes only after the markers, the manifest last; a second run finishes."""
    make_tree("debian", tmp_path)
    for path in ("/var/lib/minprov/ready/UUID", "/var/lib/minprov/applied/UUID", "/var/lib/minprov/manifest.json"):
        write(tmp_path, path)
    for path in ("/etc/ssh/ssh_host_rsa_key", "/root/.bash_history", "/var/lib/dhcp/lease", "/var/log/syslog"):
        write(tmp_path, path)
    write(tmp_path, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n")

    def plan(*, without_manifest: bool = False) -> Plan:
        request = Request(without_manifest=without_manifest)
        return plan_deprovision(System(str(tmp_path)), Tree(str(tmp_path)), Options(), request)

    items = plan().items
    asyncio.run(carry_out(System(str(tmp_path)), items[:cut], lambda note: None))
    if not (tmp_path / "etc/ssh/ssh_host_rsa_key").exists():
        assert not (tmp_path / "var/lib/minprov/ready").exists()
    if len(items) > cut and items[-1].target == "/var/lib/minprov/manifest.json":
        assert (tmp_path / "var/lib/minprov/manifest.json").exists()
    done = asyncio.run(carry_out(System(str(tmp_path)), plan(without_manifest=True).items, lambda note: None))
    assert [one for one in done if one.error] == []
    assert plan(without_manifest=True).items == ()
    assert judge(LEFTOVERS, Subject(Tree(str(tmp_path)))) == []


def test_a_system_that_nobody_has_provisioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The general list alone is a consent of its own."""
    make_tree("debian", tmp_path)
    assert run(["deprovision", "--root", str(tmp_path), "--yes"]) == 66
    assert "nothing says that this system was provisioned" in capsys.readouterr().err
    write(tmp_path, "/var/lib/waagent/provisioned")
    status, document = deprovision(tmp_path, capsys)
    assert status == 0
    assert "waagent-state" in {item["id"] for item in document["items"]}


def test_nobody_answers_yes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal nobody can be asked: the plan is shown, nothing is changed."""
    make_tree("debian", tmp_path)
    history = write(tmp_path, "/root/.bash_history")
    assert run(["deprovision", "--root", str(tmp_path), "--without-manifest"]) == 75
    captured = capsys.readouterr()
    assert "/root/.bash_history" in captured.out
    assert "not confirmed" in captured.err
    assert history.exists()


@pytest.mark.parametrize("arguments", [["--keep", "nothing"], ["--json"], ["--root", "/nonexistent"]])
def test_wrong_use(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told before anything is changed."""
    make_tree("debian", tmp_path)
    assert run(["deprovision", "--root", str(tmp_path), "--without-manifest", *arguments]) == 64
    capsys.readouterr()


def test_order_of_phases() -> None:
    """Markers go before what people log in with; what records it all goes last."""
    assert Phase.TRACES < Phase.MARKERS < Phase.ACCESS < Phase.IDENTITY < Phase.MANIFEST == max(Phase)


def test_a_user_that_is_kept_loses_the_password_that_a_run_gave(tmp_path: Path) -> None:
    """`--keep user` is as if `--user` were not there."""
    make_tree("debian", tmp_path)
    field = "$6$salt$hash"
    write(tmp_path, "/etc/passwd", "root:x:0:0::/root:/bin/sh\nazureuser:x:1000:1000::/home/azureuser:/bin/sh\n")
    write(tmp_path, "/etc/shadow", f"root:*:1::::::\nazureuser:{field}:1::::::\n")
    effects = (Effect(ACCOUNT, "azureuser", uid=1000), Effect(PASSWORD, "azureuser", sha256=digest(field.encode())))
    manifest = write(tmp_path, "/var/lib/minprov/manifest.json")
    manifest.write_bytes(build_manifest(Manifest("UUID", effects)))
    system, tree = System(str(tmp_path)), Tree(str(tmp_path))

    def acts(request: Request) -> set[Act]:
        items = plan_deprovision(system, tree, Options(), request).items
        return {item.act for item in items} & {Act.REMOVE_ACCOUNT, Act.WITHDRAW}

    assert acts(Request(user=True)) == {Act.REMOVE_ACCOUNT}
    assert acts(Request(user=True, keep=["user"])) == acts(Request()) == {Act.WITHDRAW}


def test_what_duties_keep_goes_and_what_is_beside_them_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The keys of the VM are wherever the configuration has them put."""
    make_tree("debian", tmp_path)
    write(tmp_path, "/etc/minprov/minprov.toml", '[certificates]\ndirectory = "/etc/ssl/vm"\n')
    pair = [write(tmp_path, f"/home/azureuser/.ssh/{name}", f"{name}\n") for name in ("id_rsa", "id_rsa.pub")]
    pairs = {f"/{path.relative_to(tmp_path)}": digest(path.read_bytes()) for path in pair}
    pair[1].write_text("changed since\n")
    record = {"files": ["AB.crt", "AB.prv", "../escape"], "key_pairs": pairs}
    write(tmp_path, "/var/lib/minprov/certificates.json", json.dumps(record))
    own = write(tmp_path, "/etc/ssl/vm/own.prv")
    gone = [write(tmp_path, "/etc/ssl/vm/AB.crt"), write(tmp_path, "/etc/ssl/vm/AB.prv")]
    gone += [write(tmp_path, "/var/lib/minprov/certificates/CD.prv"), tmp_path / "var/lib/minprov/certificates.json"]
    gone += [write(tmp_path, f"/var/lib/minprov/{name}") for name in hooks.FILES]
    escape = write(tmp_path, "/etc/ssl/escape")
    status, _ = deprovision(tmp_path, capsys, "--without-manifest")
    assert status == 0
    assert not any(path.exists() for path in gone)
    assert own.exists()
    assert [path.exists() for path in pair] == [False, True]
    assert escape.exists()


@pytest.mark.parametrize("others", ["", "ssh-ed25519 AAAA builder\n"])
def test_of_a_file_of_keys_stays_what_is_not_of_minprov(
    others: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree("debian", tmp_path)
    file = write(tmp_path, "/home/ops/.ssh/authorized_keys", f"ssh-ed25519 AAAA vm\n{others}")
    keys = Effect(KEYS, "/home/ops/.ssh/authorized_keys", uid=0, names=(digest(b"ssh-ed25519 AAAA vm"),))
    write(tmp_path, "/var/lib/minprov/manifest.json", build_manifest(Manifest(None, (keys,))).decode())
    status, _ = deprovision(tmp_path, capsys)
    assert status == 0
    assert (file.read_text() if file.exists() else "") == others
    assert file.exists() == bool(others)


@pytest.mark.parametrize("name", ["/etc/shadow-", "/var/backups/shadow.bak"])
def test_the_password_of_an_account_that_went_stays_in_no_copy(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree("debian", tmp_path)
    copy = write(tmp_path, name, "builder:$6$salt$hash:20000:0:99999:7:::\n")
    assert deprovision(tmp_path, capsys, "--without-manifest", "--keep", "account-copies")[0] == 0
    assert copy.exists()
    assert deprovision(tmp_path, capsys, "--without-manifest")[0] == 0
    assert not copy.exists()


@pytest.mark.parametrize(("name", "goes"), [("packer", True), ("root", False)])
def test_rules_for_sudo_go_with_the_accounts(
    name: str, goes: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree("debian", tmp_path)
    rules = f"# User rules\n{name} ALL=(ALL) NOPASSWD:ALL\n"
    files = [write(tmp_path, f"/etc/sudoers.d/{file}", rules) for file in ("waagent", "90-cloud-init-users")]
    assert deprovision(tmp_path, capsys, "--without-manifest")[0] == 0
    assert [file.exists() for file in files] == [not goes] * 2


# In a mount namespace of its own, whose mounts go with it.
COVERED = """
import asyncio, sys
from minprov.image.deprovision.shutdown import cover
from minprov.machine.system import System
asyncio.run(cover(System(), sys.argv[1]))
open(f"{sys.argv[1]}/lease", "w").write("of the shutdown")
"""


def test_what_is_written_to_a_covered_directory_does_not_reach_the_disk(tmp_path: Path) -> None:
    subprocess.run(["unshare", "--mount", sys.executable, "-c", COVERED, tmp_path], check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_finishes_what_a_killed_userdel_has_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree("debian", tmp_path)
    # As userdel leaves it when it is killed after its first file: only passwd(5) does not know of the account.
    for path, line in (
        ("shadow", "azureuser:*:20000:0:99999:7:::"),
        ("group", "azureuser:x:1000:"),
        ("subuid", "azureuser:100000:65536"),
    ):
        file = tmp_path / "etc" / path
        text = file.read_text() if file.exists() else ""
        write(tmp_path, f"/etc/{path}", f"{text}{line}\n")
    made = Effect(ACCOUNT, "azureuser", uid=1000)
    write(tmp_path, "/var/lib/minprov/manifest.json", build_manifest(Manifest(None, (made,))).decode())
    status, document = deprovision(tmp_path, capsys, "--user")
    assert status == 0, document
    for path in ("passwd", "shadow", "group", "subuid"):
        assert "azureuser" not in (tmp_path / "etc" / path).read_text()
