"""Releasing a version, on a clone of the repository: what is written, what is checked, what is tagged."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
VERSION = "7.8.9"
pytestmark = pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="needs the repository, not an archive of it")
WHO = {f"GIT_{who}_{what}": "somebody@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
BUILT = (
    f"minprov_{VERSION}_all.deb",
    f"minprov-{VERSION}-1.noarch.rpm",
    f"minprov-static-{VERSION}-1.x86_64.rpm",
    f"minprov-{VERSION}-bundle-linux-x86_64.tar.gz",
    f"minprov-{VERSION}-standalone-linux-x86_64.tar.gz",
    f"minprov-{VERSION}-static-linux-x86_64.tar.gz",
)


class Clone:
    """The tracked files of this repository as they are now, as the first commit of another."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True).stdout
        needed = b"\0".join(name for name in names.split(b"\0") if name and not name.startswith(b"tests/"))
        archive = subprocess.run(
            ["tar", "--create", "--null", "--files-from=-"],
            cwd=REPOSITORY,
            input=needed,
            check=True,
            capture_output=True,
        )
        subprocess.run(["tar", "--extract"], cwd=directory, input=archive.stdout, check=True)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> str:
        """Run git and return what it prints."""
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=self.directory, env=os.environ | WHO, check=True, capture_output=True, text=True
        ).stdout

    def commit(self) -> None:
        """Commit all that there is."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "all")

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the program."""
        command = [sys.executable, "-m", "scripts.release", *arguments]
        environment = os.environ | WHO | {"PYTHONPATH": str(self.directory), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=self.directory, env=environment, check=False, capture_output=True, text=True)

    def write_dist(self) -> Path:
        """Write what a build of the version leaves."""
        dist = self.directory / "dist"
        dist.mkdir()
        for name in BUILT:
            (dist / name).write_text(name)
            (dist / (re.sub(r"\.(deb|rpm|tar\.gz)$", "", name) + ".cdx.json")).write_text("{}")
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(dist.iterdir())]
        (dist / "SHA256SUMS").write_text("".join(lines))
        return dist


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_version_is_prepared_checked_and_tagged(clone: Clone) -> None:
    assert clone.release("prepare", VERSION).stderr == ""
    assert clone.release("check").stderr == ""
    clone.write_dist()
    clone.commit()
    done = clone.release("tag")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in BUILT)
    message = clone.git("tag", "--list", f"v{VERSION}", "--format=%(contents)")
    assert message.startswith(f"minprov {VERSION}\n\n### Added\n")
    assert f"minprov {VERSION}" in (clone.directory / "packaging/man/minprov.8").read_text()


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("minprov/__init__.py", VERSION, "7.8.8"),
        ("debian/changelog", VERSION, "7.8.8"),
        ("CHANGELOG.md", f"[{VERSION}]", "[7.8.8]"),
        ("CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n- a change that came later\n"),
    ],
    ids=["package", "debian", "changelog", "unreleased"],
)
def test_a_place_that_does_not_agree_is_named(clone: Clone, path: str, old: str, new: str) -> None:
    clone.release("prepare", VERSION)
    file = clone.directory / path
    file.write_text(file.read_text().replace(old, new, 1))
    done = clone.release("check")
    assert done.returncode == 1
    assert path in done.stderr


@pytest.mark.parametrize("name", [BUILT[0], "minprov_7.8.9_all.cdx.json", "SHA256SUMS"])
def test_what_was_not_built_is_not_tagged(clone: Clone, name: str) -> None:
    clone.release("prepare", VERSION)
    (clone.write_dist() / name).unlink()
    clone.commit()
    assert clone.release("tag").returncode == 1
    assert clone.git("tag") == ""


def test_what_is_not_committed_is_not_tagged(clone: Clone) -> None:
    clone.release("prepare", VERSION)
    clone.write_dist()
    done = clone.release("tag")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "not committed:")


def test_a_version_is_released_once(clone: Clone) -> None:
    clone.release("prepare", VERSION)
    assert "has 7.8.9 already" in clone.release("prepare", VERSION).stderr
    assert "is no version" in clone.release("prepare", "next").stderr
