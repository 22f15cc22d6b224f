"""What holds for every test, held by tests of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing_program

REPOSITORY = Path(__file__).parent.parent
BLOCKED = """
import asyncio, os

def test_blocked(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    asyncio.run(asyncio.to_thread((tmp_path / "fifo").read_bytes))
"""

# All of this machine's tree in a directory that is no mount point.
CHROOT = """
for path in /*; do
    if [ -L "$path" ]; then cp -P "$path" "$0/"; fi
    if [ -d "$path" ] && ! [ -L "$path" ]; then mkdir "$0$path"; mount --rbind "$path" "$0$path"; fi
done
exec chroot "$0" "$@"
"""


def run_pytest(test: Path, *, before: tuple[str, ...] = (), limit: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a test of its own with what holds for every test."""
    command = [
        *before,
        sys.executable,
        "-m",
        "pytest",
        "-c",
        str(REPOSITORY / "pyproject.toml"),
        "-p",
        "tests.conftest",
    ]
    return subprocess.run(
        [*command, "-o", f"timeout={limit}", str(test)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_a_test_whose_thread_blocks_ends_with_its_stack(tmp_path: Path) -> None:
    test = tmp_path / "test_blocked.py"
    test.write_text(BLOCKED)
    done = run_pytest(test, limit=1)
    assert done.returncode == 1
    assert "in test_blocked" in done.stderr, "the stack names the test"
    assert "passed" not in done.stdout


@pytest.mark.root
def test_what_needs_mounts_of_its_own_is_skipped_in_a_chroot(tmp_path: Path) -> None:
    test, root = tmp_path / "test_root.py", tmp_path / "root"
    test.write_text("import pytest\n@pytest.mark.root\ndef test_root(): pass\n")
    root.mkdir()
    done = run_pytest(test, before=("unshare", "--mount", "--propagation", "private", "sh", "-euc", CHROOT, str(root)))
    assert "needs a / that is a mount point, which a chroot's is not" in done.stdout, done.stdout + done.stderr


def test_only_a_program_that_is_not_there_is_a_missing_program() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        subprocess.run(["/usr/sbin/no-such-tool"], check=True)
    assert missing_program(caught.value) == "no-such-tool"
    with pytest.raises(FileNotFoundError) as caught:
        Path("/no/such/file").read_bytes()
    assert missing_program(caught.value) is None
