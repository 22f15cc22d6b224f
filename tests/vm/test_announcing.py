"""What `make test-vm` says of its guests while it waits for them; these ones need no machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.vm.image import PROJECT

TESTS = """
import asyncio
import pytest
from tests.vm.boot_sequence import BootSequence

async def boot():
    await asyncio.sleep(1)
    return 1

async def fail():
    raise RuntimeError("no boot")

@pytest.fixture(params=[BootSequence("small", boot), BootSequence("broken", fail)], ids=["small", "broken"])
def found(request, outcomes):
    return outcomes[request.param].result()

def test_it(found):
    assert found == 1
"""


def run_tests(directory: Path) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.vm.conftest", "-c/dev/null", "--rootdir=.", "test_small.py"],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    return done.stdout, done.stderr


def test_it_is_said_what_boots_and_how_long_it_took_the_last_time(tmp_path: Path) -> None:
    (tmp_path / "test_small.py").write_text(TESTS)
    _, said = run_tests(tmp_path)
    assert "\n  2 to boot, " in said
    assert "\n  small boots\n" in said
    assert "\n  small took 1 s\n" in said
    assert "\n  broken failed after 0 s\n" in said
    shown, said = run_tests(tmp_path)
    assert " and what 1 take that were not booted before" in said
    assert "\n  small boots; 1 s the last time\n" in said
    assert "small boots" not in shown
    assert "\x1b" not in said
