"""The image's own programs: which are run, and how each is bounded. Whole runs are scenarios, `hooks-*`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minprov.config import AFTER_READY, BEFORE_READY, FAILED, OnFailure
from minprov.duties.hooks import duty, output
from minprov.duties.hooks.output import CUT, MAX_OUTPUT
from minprov.duties.hooks.programs import find_programs
from minprov.duties.hooks.settings import Options
from minprov.errors import ProvisioningError, Reason
from minprov.machine.tools import run_tool

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's")

PLACE = "/etc/hooks"
VM = "vm"
PATIENCE = 20.0
"""Seconds for what happens at once, on a machine that has no time."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Make a tree whose root stands for ``/``: what is above it is of no concern."""
    (tmp_path / "etc/hooks/before-ready.d").mkdir(parents=True)
    return tmp_path / "etc/hooks/before-ready.d"


def write(path: Path, script: str = "", *, mode: int = 0o755) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


def is_gone(noted: Path) -> bool:
    """Tell whether the process of a number that was written down ends soon."""
    number = noted.read_text().strip()
    until = time.monotonic() + PATIENCE
    while os.path.exists(f"/proc/{number}/exe") and time.monotonic() < until:
        time.sleep(0.02)
    return not os.path.exists(f"/proc/{number}/exe")  # not there for one that is only waited for


# -- which are run -----------------------------------------------------------------------------------------------------


def names(place: Path) -> list[str]:
    programs = find_programs(PLACE, BEFORE_READY, str(place.parents[2]))
    return [program.name for program in programs if not program.passed_over and not program.fault]


def test_programs_are_run_in_the_order_of_names_by_the_rules_of_run_parts(place: Path) -> None:
    for name in ("b", "A", "10-x", "9_x", "x.sh", "x.dpkg-old", "x~", ".x", "#x#", "x y"):
        write(place / name)
    write(place / "not-executable", mode=0o644)
    (place / "directory").mkdir()
    os.mkfifo(place / "fifo", 0o755)
    assert names(place) == ["10-x", "9_x", "A", "b"]


def fault_of(place: Path) -> str | None:
    programs = find_programs(PLACE, BEFORE_READY, str(place.parents[2]))
    return programs[0].fault


def test_what_another_may_have_put_there_is_refused(place: Path) -> None:
    program = write(place / "10-x")
    assert fault_of(place) is None
    for mode in (0o775, 0o757):
        program.chmod(mode)
        assert fault_of(place) == "is writable by others"
    program.chmod(0o755)
    os.chown(program, 1234, 0)
    assert fault_of(place) == "belongs to uid 1234, not to root"


@pytest.mark.parametrize("target", ["10-x", "/bin/true", "nowhere"])
def test_a_link_is_refused_whatever_it_leads_to(place: Path, target: str) -> None:
    (place / "10-x").symlink_to(target)
    assert fault_of(place) == "is a link"


@pytest.mark.parametrize("above", ["etc", "etc/hooks", "etc/hooks/before-ready.d"])
@pytest.mark.parametrize("how", ["writable", "sticky", "foreign", "link", "loop", "file"])
def test_nothing_is_run_below_a_directory_that_another_may_change(place: Path, above: str, how: str) -> None:
    write(place / "10-x")
    root = place.parents[2]
    directory = root / above
    if how in ("writable", "sticky"):
        directory.chmod(0o777 if how == "writable" else 0o1777)
    elif how == "foreign":
        os.chown(directory, 1234, 0)
    else:
        directory.rename(root / "elsewhere")
        if how == "file":
            directory.touch()
        else:
            directory.symlink_to(root / "elsewhere" if how == "link" else directory)
    with pytest.raises(ProvisioningError) as caught:
        find_programs(PLACE, BEFORE_READY, str(root))
    assert caught.value.reason is Reason.HOOK_REFUSED
    assert caught.value.data["path"] == f"/{above}"


def test_a_stage_may_have_no_directory_but_all_of_them_have_one(place: Path) -> None:
    assert find_programs(PLACE, FAILED, str(place.parents[2])) == []
    with pytest.raises(ProvisioningError) as caught:
        find_programs("/etc/hoks", FAILED, str(place.parents[2]))
    assert caught.value.data == {"path": "/etc/hoks", "detail": "No such file or directory"}


# -- how they are run --------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the tree's programs run, in place of what `/` has."""
    monkeypatch.setattr(duty, "find_programs", lambda directory, stage: find_programs(directory, stage, str(tmp_path)))
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def run(
    state: Path, *, stage: str = BEFORE_READY, vm_id: str = VM, limit: float = 10.0, warn: bool = False
) -> list[str]:
    options = Options(PLACE, limit, OnFailure.WARN if warn else OnFailure.FAIL)
    notes: list[str] = asyncio.run(duty.run(options, stage, str(state), vm_id, b'{"a": 1}'))["notes"]
    return notes


def log_of(state: Path, stage: str = BEFORE_READY) -> bytes:
    return (state / f"hooks-{stage}.log").read_bytes()


def record_of(state: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads((state / "hooks.json").read_text())
    return record


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 1", "exit status 1"),
        ("exit 255", "exit status 255"),
        ("kill -TERM $$", "signal 15"),
        ("exec sleep 600", "no end after 0.2 s"),
    ],
)
def test_how_a_program_fails_is_told_and_those_behind_it_do_not_run(
    place: Path, state: Path, script: str, status: str
) -> None:
    write(place / "10-x", script)
    write(place / "20-y")
    for _ in range(2):
        with pytest.raises(ProvisioningError) as caught:
            run(state, limit=0.2 if "sleep" in script else 60)
        assert caught.value.reason is Reason.HOOK_FAILED
        assert caught.value.data == {"stage": BEFORE_READY, "name": "10-x", "status": status}
        assert record_of(state)["finished"] == {"before-ready/10-x": status}
    assert len(log_of(state).splitlines()) == 1  # a second run starts nothing


def test_all_that_a_program_has_started_ends_with_its_time(place: Path, state: Path) -> None:
    write(place / "10-x", f"sleep 600 & echo $! >{state}/child; sleep 600")
    assert run(state, limit=2, warn=True) == ["hook failed: stage=before-ready, name=10-x, status=no end after 2 s"]
    assert is_gone(state / "child")


def test_a_flood_of_output_is_cut_and_does_not_hold_the_program_up(place: Path, state: Path) -> None:
    write(place / "10-x", "head --bytes=20000000 /dev/zero; echo end >&2")
    write(place / "20-y", "echo small")
    run(state)
    head, tail = b"== before-ready/10-x\n", b"== before-ready/20-y\nsmall\n"
    assert log_of(state) == head + bytes(MAX_OUTPUT) + CUT + tail


def test_a_program_does_not_fail_for_a_log_that_is_full(place: Path) -> None:
    program = write(place / "10-x", "head --bytes=200000 /dev/zero")

    async def main(log: int) -> None:
        output.write(log, b"== before-ready/10-x\n")
        with output.kept_output(log) as descriptor:
            await run_tool([str(program)], output=descriptor)

    with open("/dev/full", "wb") as full:
        asyncio.run(main(full.fileno()))


def test_what_a_program_leaves_running_is_neither_waited_for_nor_ended(place: Path, state: Path) -> None:
    os.mkfifo(state / "told")
    write(place / "10-x", f"echo said; (read -r word <{state}/told; touch {state}/left) &")
    run(state)
    assert b"said" in log_of(state)
    assert not (state / "left").exists()
    (state / "told").write_text("go on\n")  # somebody reads it
    until = time.monotonic() + PATIENCE
    while not (state / "left").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert (state / "left").exists()


def test_a_program_has_the_report_and_nothing_of_the_callers_environment(
    place: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the caller")
    write(place / "10-x", "cat; echo; env | cut -d= -f1 | sort | tr '\\n' ' '")
    run(state)
    assert log_of(state).splitlines()[1:] == [b'{"a": 1}', b"HOME LANG MINPROV_STAGE PATH PWD "]


def test_each_runs_once_for_a_vm_and_again_for_another(place: Path, state: Path) -> None:
    write(place / "10-x", f"echo x >>{state}/ran")
    for vm_id in (VM, VM, "another"):
        run(state, vm_id=vm_id)
    write(place / "20-y", f"echo y >>{state}/ran")
    run(state, vm_id="another")
    assert (state / "ran").read_text() == "x\nx\ny\n"


def test_those_for_a_failure_run_after_each_and_leave_the_record_alone(place: Path, state: Path) -> None:
    write(place / "10-x", "exit 1")
    with pytest.raises(ProvisioningError):
        run(state)
    before = record_of(state)
    place.rename(place.with_name("failed.d"))
    for _ in range(2):
        assert run(state, stage=FAILED) == ["hook failed: stage=failed, name=10-x, status=exit status 1"]
    assert record_of(state) == before


def test_a_failure_after_ready_is_noted_and_holds_nothing_back(place: Path, state: Path) -> None:
    write(place / "10-x", "exit 1")
    write(place / "20-y", f"touch {state}/ran")
    place.rename(place.with_name("after-ready.d"))
    assert run(state, stage=AFTER_READY) == ["hook failed: stage=after-ready, name=10-x, status=exit status 1"]
    assert (state / "ran").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_gone_ends_the_program_and_what_it_has_started(place: Path, state: Path, number: int) -> None:
    """SIGTERM ends the hooks' program, as the deadline of a run does; SIGKILL the run that waits for it."""
    write(place / "10-x", f"sleep 600 & echo $! >{state}/child; touch {state}/started; sleep 600")
    program = (
        "import asyncio, sys\n"
        "from minprov.commands import hooks\n"
        "from minprov.config import Options as Core\n"
        "from minprov.duties.hooks import duty\n"
        "from minprov.duties.hooks.programs import find_programs\n"
        "from minprov.duties.hooks.settings import Options\n"
        f"duty.find_programs = lambda directory, stage: find_programs(directory, stage, {str(state.parent)!r})\n"
        f"hooks._run(Options({PLACE!r}), Core(state_dir={str(state)!r}, console=''), {BEFORE_READY!r})\n"
    )
    waiting = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}], stdin=subprocess.DEVNULL)"
    source = waiting if number == signal.SIGKILL else program
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until = time.monotonic() + PATIENCE
        while not (state / "started").exists() and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(number)
    assert is_gone(state / "child")
    assert record_of(state)["finished"] == {} if (state / "hooks.json").exists() else True
