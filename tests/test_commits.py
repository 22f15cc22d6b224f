"""What `make check` says about commits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).parent.parent / "scripts/check_commits.py"
WHO = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (f"{'x' * 70}\n\nWhy.", ""),
        (f"{'ä' * 70}\n\nWhy.", ""),
        (f"{'x' * 71}\n\nWhy.", "the subject has 71 characters, more than 70"),
        ("tests: say why", "no body says why: tests: say why"),
    ],
    ids=["longest", "characters", "too-long", "no-body"],
)
def test_commits_after_a_named_one_are_checked(tmp_path: Path, message: str, said: str) -> None:
    def git(*arguments: str) -> str:
        command = ["git", *WHO, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "y" * 80)
    first = git("rev-parse", "HEAD")
    git("commit", "--quiet", "--allow-empty", "--message", message)
    done = subprocess.run([sys.executable, CHECK, first], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == bool(said), done.stderr
    assert said in done.stderr


def test_a_tree_without_history_has_nothing_to_check(tmp_path: Path) -> None:
    subprocess.run([sys.executable, CHECK], cwd=tmp_path, check=True)
