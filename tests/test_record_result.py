"""What is recorded of a target that takes long."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
WHO = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]


@pytest.mark.parametrize(
    ("recipe", "status", "row"),
    [
        ("echo 1 passed; echo '== 12 passed in 3 s =='", 0, "| passed: 12 passed in 3 s |"),
        ("echo 1 failed, 11 passed; exit 1", 1, "| **failed**: 1 failed, 11 passed |"),
    ],
    ids=["passed", "failed"],
)
def test_the_row_of_a_target_is_replaced(tmp_path: Path, recipe: str, status: int, row: str) -> None:
    for name in ("scripts/record_result.py", "docs/results.md"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "Makefile").write_text(f"long:\n\t@{recipe}\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", *WHO, "commit", "--quiet", "--allow-empty", "--message=x"], cwd=tmp_path, check=True)
    for _ in range(2):
        command = [sys.executable, "scripts/record_result.py", "long"]
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert bool(done.returncode) == bool(status), done.stderr
    rows = [line for line in (tmp_path / "docs/results.md").read_text().splitlines() if "`make long`" in line]
    assert len(rows) == 1
    assert row in rows[0]
