"""Files replaced whole, paths that stay in their tree, tools that cannot run away."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from minprov.errors import ProvisioningError, Reason
from minprov.machine import tools
from minprov.machine.files import read_file
from minprov.machine.system import System
from minprov.machine.tools import find_tool, run_tool

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def error_of(work: Coroutine[Any, Any, object]) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        run(work)
    return caught.value


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(str(tmp_path))


def test_a_draft_is_there_for_a_program_and_not_synced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.fsync", lambda _: pytest.fail("synced"))
    path = tmp_path / "draft"
    path.write_text("of a run that was killed")

    def error_after(program: str) -> ProvisioningError:
        return error_of(System().read_draft(["sh", "-c", program, "sh"], str(path), b"a line", mode=0o440))

    for _ in range(2):
        error = error_after('stat -c %a "$1" >&2; cat "$1" >&2; exit 3')
        assert error.data == {"tool": "sh", "exit_status": "3", "detail": "440 / a line"}
        assert not path.exists()


def test_a_link_in_a_tree_leads_where_the_tree_system_would_be_led(system: System, tmp_path: Path) -> None:
    (tmp_path / "usr/etc").mkdir(parents=True)
    (tmp_path / "etc").symlink_to("/usr/etc")
    (tmp_path / "usr/etc/up").symlink_to("../../../../../secret")
    assert system.path("/etc/hostname") == str(tmp_path / "usr/etc/hostname")
    assert system.path("/etc/up") == str(tmp_path / "secret")
    assert system.path("/../../x") == str(tmp_path / "x")
    assert system.path("/..") == str(tmp_path)
    assert system.path("/etc/") == str(tmp_path / "usr/etc")


def test_a_file_of_a_tree_that_is_a_link_is_read_in_the_tree(system: System, tmp_path: Path) -> None:
    for name in ("etc", "usr"):
        (tmp_path / name).mkdir()
    (tmp_path / "etc/passwd").symlink_to("/usr/passwd")
    assert system.read("/etc/passwd") is None
    (tmp_path / "usr/passwd").write_text("of the tree")
    assert system.read("/etc/passwd") == b"of the tree"


def test_a_loop_of_links_ends(system: System, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ProvisioningError) as caught:
        system.path("/a/x")
    assert caught.value.data == {"path": "/a/x", "detail": "Too many levels of symbolic links"}


def test_the_running_system_takes_paths_as_they_are() -> None:
    assert System("/").path("/etc/../x") == "/etc/../x"
    assert System("/").live
    assert not System("/usr").live


@pytest.mark.root  # what is replaced becomes root's
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_file_gets_its_mode_whatever_the_umask(system: System, tmp_path: Path, umask: int) -> None:
    owner = os.umask(umask)
    try:
        run(system.replace("/etc/deep/file", b"x", mode=0o640))
    finally:
        os.umask(owner)
    path = tmp_path / "etc/deep/file"
    assert path.read_bytes() == b"x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.root
def test_replacing_a_link_leaves_its_target_alone(system: System, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    run(system.replace("/link", b"new", mode=0o600))
    assert (tmp_path / "target").read_text() == "old"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.root
def test_what_a_killed_run_left_is_taken_over(system: System, tmp_path: Path) -> None:
    (tmp_path / ".file.minprov").write_text("half of someth")
    run(system.replace("/file", b"whole", mode=0o600))
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.root
def test_a_link_planted_as_temporary_file_is_not_followed(system: System, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".file.minprov").symlink_to("victim")
    run(system.replace("/file", b"x", mode=0o600))
    assert (tmp_path / "victim").read_text() == "precious"


def test_reading_a_file_that_is_not_there_is_none(system: System, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert system.read("/none") is None
    assert system.read("/none/deeper") is None
    assert system.read("/file/deeper") is None
    assert system.read_text("/none") == ""


def test_a_file_of_etc_is_read_again_when_it_has_changed_and_then_alone(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reads = tmp_path / "etc/file", []

    def read(directory: int | None, name: str, *, follow: bool = False) -> bytes | None:
        reads.append(name)
        return read_file(directory, name, follow=follow)

    monkeypatch.setattr("minprov.machine.system.read_file", read)
    file.parent.mkdir()
    for contents in (b"a", b"b", b"c", b"d"):
        file.write_bytes(contents)  # in place, and faster than the clock of the file system goes
        assert system.read("/etc/file") == contents
    time.sleep(0.1)
    assert [system.read("/etc/file") for _ in range(3)] == [b"d"] * 3
    assert len(reads) == 5
    (tmp_path / "other").write_bytes(b"e")
    (tmp_path / "other").rename(file)
    assert system.read("/etc/file") == b"e"
    file.unlink()
    assert system.read("/etc/file") is None


def test_undecodable_text_survives(system: System, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\xffb")
    assert system.read_text("/file").encode(errors="surrogateescape") == b"a\xffb"


def test_an_unwritable_place_is_named(system: System, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    error = error_of(system.replace("/file/below", b"x", mode=0o600))
    assert error.reason is Reason.WRITE_FAILED
    assert error.data["path"] == "/file/below"


def test_removing_what_is_not_there_is_nothing(system: System, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    run(system.remove("/file"))
    run(system.remove("/file"))
    run(system.remove("/none/file"))
    assert os.listdir(tmp_path) == []


def test_a_tool_gets_its_stdin_and_a_built_environment(system: System) -> None:
    assert run(run_tool(["/bin/cat"], stdin=b"in")) == "in"
    environment = run(run_tool(["/usr/bin/env"])).splitlines()
    assert sorted(line.split("=")[0] for line in environment) == ["HOME", "LANG", "PATH", "RES_OPTIONS"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_tool_that_does_not_read_its_stdin_is_no_error(system: System, loop: str) -> None:
    factory = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        for _ in range(20):
            runner.run(run_tool(["/bin/true"], stdin=b"x" * 1000))


def test_a_failing_tool_gives_its_status_and_last_words(system: System) -> None:
    error = error_of(run_tool(["/bin/sh", "-c", "echo one; echo two >&2; exit 3"]))
    assert error.reason is Reason.TOOL_FAILED
    assert error.data == {"tool": "sh", "exit_status": "3", "detail": "two"}


def test_a_killed_tool_gives_the_signal(system: System) -> None:
    assert error_of(run_tool(["/bin/sh", "-c", "kill -9 $$"])).data == {"tool": "sh", "signal": "9"}


def test_what_is_no_program_is_told_as_such(tmp_path: Path) -> None:
    empty, orphan, directory = tmp_path / "empty", tmp_path / "orphan", tmp_path / "directory"
    empty.touch(0o755)
    orphan.write_text("#!/no/such/interpreter\n")
    orphan.chmod(0o755)
    directory.mkdir()
    error = error_of(run_tool([str(empty)]))
    assert (error.reason, error.data["detail"]) == (Reason.TOOL_FAILED, "Exec format error")
    error = error_of(run_tool([str(orphan)]))
    assert (error.reason, error.data["detail"]) == (Reason.TOOL_NOT_FOUND, "its interpreter is not there")
    assert error_of(run_tool([str(directory)])).reason is Reason.TOOL_NOT_FOUND


def test_a_directory_with_the_name_of_a_tool_hides_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first/useradd").mkdir(parents=True)
    (tmp_path / "second").mkdir()
    (tmp_path / "second/useradd").touch(0o755)
    monkeypatch.setattr(tools, "PATH", f"{tmp_path}/first:{tmp_path}/second")
    assert find_tool("useradd") == f"{tmp_path}/second/useradd"


def test_a_missing_tool_is_named(system: System) -> None:
    error = error_of(run_tool(["/nowhere/tool"]))
    assert (error.reason, error.data["tool"]) == (Reason.TOOL_NOT_FOUND, "tool")


def test_a_hanging_tool_is_ended_with_its_children(system: System, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    error = error_of(run_tool(["/bin/sh", "-c", f"sleep 1000 > {fifo} & wait"], limit=0.2))
    assert error.data == {"tool": "sh", "detail": "no end after 0.2 s"}
    # The child held the writing end: end of file says that it is gone.
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_cancelled_tool_is_ended(system: System, tmp_path: Path) -> None:
    async def cancel_soon() -> None:
        async with asyncio.timeout(0.2):
            await run_tool(["/bin/sh", "-c", "sleep 1000"])

    start = time.monotonic()
    with pytest.raises(TimeoutError):
        run(cancel_soon())
    assert time.monotonic() - start < 30


def test_an_account_tool_works_on_the_tree(system: System) -> None:
    useradd = find_tool("useradd")
    assert System("/").account_tool("useradd") == [useradd]
    assert system.account_tool("useradd") == [useradd, "--root", system.root]
    assert system.account_tool("no-such-tool") is None


def test_a_tool_of_the_tree_is_entered(system: System, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    busybox = tmp_path / "bin/busybox"
    busybox.touch(0o755)
    assert system.own_tool("adduser", "busybox adduser") == [
        find_tool("chroot"),
        system.root,
        "/bin/busybox",
        "adduser",
    ]
    assert system.own_tool("adduser") is None
