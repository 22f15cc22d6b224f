"""What long works show on a terminal: one line, replaced and taken away; in a log nothing of it, and no colour."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.terminal import run_on_terminal
from tests.image.recorded import make_tree

MINPROV = (sys.executable, "-m", "minprov")
XTERM = {"TERM": "xterm"}
RED = "\x1b[31m"
WORK = """
import sys, time
from minprov.image.progress import Progress
progress = Progress("copying the disk")
for share in (0, 0.01, 0.5):
    progress.show(share)
    time.sleep(1)
progress.end()
print("done", file=sys.stderr)
"""


WORK_ON = """
from minprov.image.progress import StatusLine
line = StatusLine()
line.show("here")
print("shown", flush=True)
input()
line.show("nobody is there")
line.clear()
"""


@pytest.fixture
def broken_tree(tmp_path: Path) -> Path:
    """Return a tree in which something fails."""
    make_tree("debian", tmp_path)
    (tmp_path / "etc/ssh/ssh_host_rsa_key").write_text("a key")
    return tmp_path


def make_image(path: Path) -> Path:
    with path.open("wb") as file:
        file.write(b"data" * 1024)
        file.truncate(30 << 20)
    return path


def test_a_work_is_shown_in_one_line_that_goes() -> None:
    _, shown = run_on_terminal([sys.executable, "-c", WORK], XTERM)
    lines = shown.split("\r")
    assert lines[:3] == ["", "copying the disk:   0%\x1b[K", "copying the disk:   1%\x1b[K"]
    assert re.fullmatch(r"copying the disk:  50%, about [2-9] s left\x1b\[K", lines[3])
    assert lines[4:] == ["\x1b[Kdone", "\n"]


def test_a_line_is_no_wider_than_the_terminal() -> None:
    # A wrapped line would stay behind, since only its last row is replaced.
    _, shown = run_on_terminal([sys.executable, "-c", WORK], XTERM, columns=12)
    assert "\rcopying the\x1b[K" in shown


def test_a_work_goes_on_when_its_terminal_is_closed() -> None:
    master, slave = pty.openpty()
    argv, environment = [sys.executable, "-c", WORK_ON], {**os.environ, **XTERM}
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=slave, env=environment
    ) as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == b"shown\n"
        os.close(slave)
        os.close(master)
        process.stdin.write(b"\n")
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.parametrize("columns", [0, 200])
def test_a_terminal_of_any_size_is_shown_the_whole_line(columns: int) -> None:
    _, shown = run_on_terminal([sys.executable, "-c", WORK], XTERM, columns=columns)
    assert "\rcopying the disk:   0%\x1b[K" in shown


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}], ids=["no-TERM", "dumb"])
def test_a_terminal_that_knows_no_control_characters_gets_none(environment: dict[str, str]) -> None:
    _, shown = run_on_terminal([sys.executable, "-c", WORK], environment)
    assert shown == "done\r\n"


def test_a_vhd_is_made_before_somebodys_eyes(tmp_path: Path) -> None:
    image, out = make_image(tmp_path / "image.raw"), tmp_path / "out.vhd"
    status, shown = run_on_terminal([*MINPROV, "vhd", str(image), str(out)], XTERM, stdout=False)
    assert status == 0
    steps = [step.removesuffix("\x1b[K") for step in shown.split("\r") if step != "\x1b[K"]
    assert steps[:2] == ["", "copying:   0%"]
    assert all(step.startswith("copying: ") for step in steps[2:-1])
    assert steps[-1] == "waiting until the disk has it all"
    assert shown.endswith("\r\x1b[K")


def test_an_image_is_checked_before_somebodys_eyes(broken_tree: Path) -> None:
    status, shown = run_on_terminal([*MINPROV, "check", "--root", str(broken_tree)], XTERM, stdout=False)
    assert status == 1
    assert "\rchecking:   0%" in shown
    assert shown.endswith("\r\x1b[K")


def test_what_fails_stands_out_on_a_terminal(broken_tree: Path) -> None:
    argv = [*MINPROV, "check", "--root", str(broken_tree)]
    _, shown = run_on_terminal(argv, XTERM)
    assert f"{RED}Keeps a VM from coming up, or from being trusted\x1b[m\r\n" in shown
    for environment in (XTERM | {"NO_COLOR": "1"}, {"TERM": "dumb"}):
        _, shown = run_on_terminal(argv, environment)
        assert "\nKeeps a VM from coming up, or from being trusted\r\n" in shown
        assert RED not in shown


def test_an_empty_no_color_is_none(broken_tree: Path) -> None:
    _, shown = run_on_terminal([*MINPROV, "check", "--root", str(broken_tree)], XTERM | {"NO_COLOR": ""})
    assert RED in shown


def test_a_log_has_no_control_characters(tmp_path: Path, broken_tree: Path) -> None:
    image, out = make_image(tmp_path / "image.raw"), tmp_path / "out.vhd"
    for argv in ((*MINPROV, "vhd", str(image), str(out)), (*MINPROV, "check", "--root", str(broken_tree))):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert not re.search(r"[\r\x1b]", done.stdout)
