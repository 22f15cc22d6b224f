"""Nothing that is stuck makes a run outlive its deadline, or SIGTERM; and the console says what is being waited for."""

from __future__ import annotations

import asyncio
import math
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minprov.bounds import Bounds
from minprov.emulator.faults import Faults, Step
from minprov.emulator.platform import Emulator, Exchange
from minprov.errors import ProvisioningError, Reason
from minprov.machine.child_process import in_child_process
from minprov.outcome.timeline import Timeline
from tests.outcome.test_kvp import held
from tests.stuck import stuck_files
from tests.whole_run import Ended, WholeRun, ended, on, terminate

STALL = (Step(times=math.inf, drop="stall"),)
STALLED_HEALTH = Faults(steps={"health": STALL, "provisioning-health": STALL})
STALLED_IMDS = Faults(steps={"instance": STALL})
MAIN = "\nfrom minprov.__main__ import main\nmain()\n"


class Watch:
    """Tells when the platform was asked at one of the endpoints."""

    def __init__(self, *endpoints: str) -> None:
        self.asked = asyncio.Event()
        self._endpoints = endpoints

    def __call__(self, exchange: Exchange) -> None:
        if exchange.endpoint in self._endpoints:
            self.asked.set()


class Shim:
    """A tool that says that it was started and then hangs, for a mount namespace in which it covers the real one."""

    def __init__(self, directory: Path, tool: str) -> None:
        self._directory = directory
        os.mkfifo(directory / "started")
        shim = directory / tool
        shim.write_text(f"#!/bin/sh\necho > '{directory}/started'\nexec sleep 1000\n")
        shim.chmod(0o755)
        self.cover = f"mount --bind '{shim}' {shutil.which(tool)}"

    async def started(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the tool; the process that is to start it may have ended without."""
        started = asyncio.Event()
        # Neither opening nor reading may block: a thread that does cannot be given up.
        reader = os.open(self._directory / "started", os.O_RDONLY | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(reader, started.set)
        try:
            waits = [asyncio.create_task(started.wait()), asyncio.create_task(process.wait())]
            _, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            assert started.is_set(), f"no tool was started: {await ended(process)}"
        finally:
            asyncio.get_running_loop().remove_reader(reader)
            os.close(reader)


def use_usermod(whole: WholeRun) -> None:
    """Have the run use a tool: usermod, for a user who is not in a group."""
    whole.settings["user.policy"] = "required"
    (whole.root / "etc/passwd").write_text("azureuser:x:1000:1000::/home/azureuser:/bin/sh\n")
    (whole.root / "etc/group").write_text("sudo:x:27:\n")
    (whole.root / "bin").mkdir(exist_ok=True)
    (whole.root / "bin/sh").touch(0o755)
    (whole.root / "home/azureuser").mkdir(parents=True)
    os.chown(whole.root / "home/azureuser", 1000, 1000)


# -- a stuck drive -----------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("opens", [False, True], ids=["opening", "reading"])
def test_a_drive_stuck_in_the_kernel_holds_up_neither_the_run_nor_its_end(
    whole: WholeRun, tmp_path: Path, opens: bool
) -> None:
    async def test(platform: Emulator) -> None:
        with stuck_files(tmp_path / "drive", opens=opens) as drive:
            whole.media = drive.path
            code = "import minprov.gather; minprov.gather.MEDIA_LIMIT = 0.5" + MAIN
            run = await ended(await whole.start(platform, code=code))
            assert drive.reached.is_set()
            assert run.status == 0, run.stderr
            assert run.seconds < 10
            assert whole.report()["sources"]["media"]["state"] == "failed"
            assert "no answer in 0.5 s" in whole.report()["sources"]["media"]["detail"]
            assert [report.state for report in platform.health_reports] == ["Ready"]

    on(Emulator(), test)


@pytest.mark.root
def test_a_drive_that_never_answers_leaves_the_rest_of_the_run_its_time(whole: WholeRun, tmp_path: Path) -> None:
    async def test(platform: Emulator) -> None:
        with stuck_files(tmp_path / "drive") as drive:
            whole.media = drive.path
            run = await ended(await whole.start(platform, seconds=6))
            assert run.status == 0, run.stderr
            assert run.seconds < 6
            assert whole.report()["sources"]["media"]["state"] == "failed"
            assert [report.state for report in platform.health_reports] == ["Ready"]

    on(Emulator(), test)


@pytest.mark.root
def test_a_drive_that_never_answers_is_the_reason_where_there_is_nothing_else(whole: WholeRun, tmp_path: Path) -> None:
    async def test(platform: Emulator) -> None:
        with stuck_files(tmp_path / "drive") as drive:
            whole.media = drive.path
            run = await ended(await whole.start(platform, seconds=2))
            assert run.status == 74
            assert run.seconds < 2 + 10
            assert whole.report()["error"]["reason"] == "failed to read provisioning media"
            [health] = platform.health_reports
            assert health.description
            assert "reason=failed to read provisioning media|" in health.description

    on(Emulator(faults=STALLED_IMDS), test)


@pytest.mark.root
def test_a_drive_that_is_late_is_waited_for_as_long_as_imds_is(whole: WholeRun) -> None:
    late = whole.media.rename(whole.media.with_suffix(".late"))
    watch = Watch("instance")

    async def test(platform: Emulator) -> None:
        process = await whole.start(platform)
        await watch.asked.wait()
        late.rename(whole.media)
        run = await ended(process)
        assert run.status == 0, run.stderr
        assert whole.report()["sources"]["media"]["state"] == "found"

    on(Emulator(faults=STALLED_IMDS, on_request=watch), test)


def test_a_fifo_is_no_media(whole: WholeRun, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    whole.media = tmp_path / "fifo"

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, "--dry-run"))
        assert run.status == 0
        assert "media       failed  unsupported file system on provisioning media" in run.stdout

    on(Emulator(), test)


# -- other things that are stuck ---------------------------------------------------------------------------------------


BLOCKED = """
import sys, minprov.commands.run as command
command.KILL_GRACE = 0.5
command.read_identity = lambda: command.Identity(chassis_asset_tag=None, dmi_uuid="a", vm_id="a")
command.holds = lambda *_: open(sys.argv[2] + "/fifo")
"""


@pytest.mark.root
def test_the_kernel_ends_a_run_whose_only_thread_is_blocked(whole: WholeRun) -> None:
    os.mkfifo(whole.root / "fifo")  # to open it blocks, for there is nobody at the other end

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, seconds=0.5, code=BLOCKED + MAIN))
        assert run.status == -signal.SIGALRM
        assert run.seconds < 10

    on(Emulator(), test)


@pytest.mark.root
def test_a_stuck_console_holds_nobody_up(whole: WholeRun, tmp_path: Path) -> None:
    async def test(platform: Emulator) -> None:
        with stuck_files(tmp_path / "tty") as tty:
            whole.settings["report.console"] = str(tty.path)
            run = await ended(await whole.start(platform))
            assert tty.reached.is_set()
            assert run.status == 0
            assert run.seconds < 10
            assert whole.report()["outcome"] == "provisioned"

    on(Emulator(), test)


@pytest.mark.root
def test_a_console_that_takes_nothing_holds_nobody_up(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        with full_terminal() as terminal:
            whole.settings["report.console"] = terminal
            run = await ended(await whole.start(platform))
            assert run.status == 0
            assert run.seconds < 10

    on(Emulator(), test)


@contextmanager
def full_terminal() -> Iterator[str]:
    """Yield a terminal whose other end nobody reads, filled until it takes no more."""
    master, slave = pty.openpty()
    try:
        os.set_blocking(slave, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(slave, b"x" * 4096)
        yield os.ttyname(slave)
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.root
def test_a_pool_that_stays_locked_holds_nobody_up(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform))
        assert run.status == 0
        assert "no report in the KVP pool" in run.stderr
        assert [report.state for report in platform.health_reports] == ["Ready"]

    with held(whole.pool, "flock"):
        on(Emulator(), test)


@pytest.mark.root
def test_a_full_disk_is_a_failure_that_is_told(whole: WholeRun) -> None:
    (whole.root / "var/lib").mkdir(parents=True)
    state = whole.root / "var/lib"
    full = f"mount -t tmpfs -o size=64k tmpfs {state}; head -c 1M /dev/zero > {state}/full || true"

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, before=full))
        assert run.status == 74
        [health] = platform.health_reports
        assert health.description
        assert "|detail=No space left on device|" in health.description
        assert whole.console_lines() == [f"minprov: {health.description}"]
        assert whole.host_report() == health.description

    on(Emulator(), test)


@pytest.mark.root
def test_a_socket_that_takes_a_request_and_never_answers_is_given_up(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, seconds=4))
        assert run.status == 69
        assert run.seconds < 4 + 10
        assert whole.report()["error"]["data"]["cause"] == "timeout querying WireServer"

    on(Emulator(faults=STALLED_HEALTH), test)


@pytest.mark.root
def test_a_hanging_tool_is_ended_by_the_deadline(whole: WholeRun, tmp_path: Path) -> None:
    use_usermod(whole)
    shim = Shim(tmp_path, "usermod")

    async def test(platform: Emulator) -> None:
        process = await whole.start(platform, seconds=4, before=shim.cover)
        await shim.started(process)
        run = await ended(process)
        assert run.status == 75
        assert run.seconds < 4 + 10
        assert whole.report()["error"]["data"]["waited_for"] == "ensure-user"
        assert [report.state for report in platform.health_reports] == ["NotReady"]

    on(Emulator(), test)


# -- SIGTERM -----------------------------------------------------------------------------------------------------------


# Which of them a run waits for when the drive is reached, which is read before all else, depends on the machine.
AT_THE_START = ("the provisioning media", "the file system")


def assert_terminated(whole: WholeRun, run: Ended, *waited_for: str) -> None:
    assert run.seconds < 5
    assert run.status == 75
    error = whole.report()["error"]
    assert error["reason"] == "terminated by a signal"
    assert not {*waited_for}.isdisjoint(re.split(" and | or ", error["data"]["waited_for"]))
    assert whole.host_report().startswith("result=error|reason=terminated by a signal|")
    assert "reason=terminated by a signal" in whole.console_lines()[-1]


# SIGTERM as soon as the drive is being read, when the rest of the program is not loaded yet.
LOADING = (
    """
import os, signal
import minprov.commands.run

class Stopped(minprov.commands.run.Reading):
    def __init__(self, options):
        super().__init__(options)
        os.kill(os.getpid(), signal.SIGTERM)

minprov.commands.run.Reading = Stopped
"""
    + MAIN
)


@pytest.mark.root
def test_sigterm_while_the_program_is_being_loaded_waits_until_it_can_be_told_of(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        process = await whole.start(platform, code=LOADING)
        assert_terminated(whole, await ended(process), *AT_THE_START)
        assert platform.health_reports == []

    on(Emulator(), test)


@pytest.mark.root
def test_sigterm_ends_the_wait_for_a_drive(whole: WholeRun, tmp_path: Path) -> None:
    async def test(platform: Emulator) -> None:
        with stuck_files(tmp_path / "drive") as drive:
            whole.media = drive.path
            process = await whole.start(platform)
            assert await asyncio.to_thread(drive.reached.wait, 30)
            assert_terminated(whole, await terminate(process), *AT_THE_START)
        assert platform.health_reports == []

    on(Emulator(), test)


@pytest.mark.root
def test_sigterm_ends_the_wait_for_imds(whole: WholeRun, tmp_path: Path) -> None:
    whole.media = tmp_path / "none"
    watch = Watch("instance")

    async def test(platform: Emulator) -> None:
        process = await whole.start(platform)
        await watch.asked.wait()
        assert_terminated(whole, await terminate(process), "IMDS")

    on(Emulator(faults=STALLED_IMDS, on_request=watch), test)


@pytest.mark.root
def test_sigterm_ends_a_tool(whole: WholeRun, tmp_path: Path) -> None:
    use_usermod(whole)
    shim = Shim(tmp_path, "usermod")

    async def test(platform: Emulator) -> None:
        process = await whole.start(platform, before=shim.cover)
        await shim.started(process)
        assert_terminated(whole, await terminate(process), "ensure-user")

    on(Emulator(), test)


@pytest.mark.root
def test_sigterm_ends_the_wait_for_wireserver_and_the_next_run_reports(whole: WholeRun) -> None:
    watch = Watch("health")

    async def test(platform: Emulator) -> None:
        process = await whole.start(platform)
        await watch.asked.wait()
        assert_terminated(whole, await terminate(process), "WireServer to accept the Ready report")
        platform.faults = Faults()
        assert (await ended(await whole.start(platform))).status == 0
        assert [report.state for report in platform.health_reports] == ["Ready"]

    on(Emulator(faults=STALLED_HEALTH, on_request=watch), test)


# -- the heartbeat -----------------------------------------------------------------------------------------------------

SOON = "import minprov.bounds; minprov.bounds.HEARTBEAT = 0.05" + MAIN


def test_a_time_limit_after_a_failure_is_a_time_out() -> None:
    async def fail() -> None:
        raise ProvisioningError(Reason.NO_SOURCE)

    async def main() -> int:
        bounds = Bounds(60, Timeline())
        for _ in range(2):
            with pytest.raises(ProvisioningError):
                await bounds.run(fail())
        with pytest.raises(TimeoutError):
            await bounds.run(asyncio.sleep(60), limit=-1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(60)
        task = asyncio.current_task()
        assert task
        return task.cancelling()

    # In Debian 12's Python a request to cancel that was left behind would have the last time-out end the run.
    assert asyncio.run(main()) == 0


async def heartbeat(whole: WholeRun, process: asyncio.subprocess.Process, subject: str) -> None:
    """Wait for the line, then end the run."""
    assert process.stderr
    async for line in process.stderr:
        if f"waiting for {subject}, " in line.decode():
            break
    else:
        raise AssertionError(whole.console_lines())
    process.terminate()
    await process.communicate()
    lines = [re.fullmatch(rf"minprov: waiting for {subject}, (\d+) s left", line) for line in whole.console_lines()]
    left = [int(line[1]) for line in lines if line]
    assert left
    assert all(0 < seconds <= 30 for seconds in left)


@pytest.mark.root
def test_the_console_says_that_the_drive_is_waited_for(whole: WholeRun, tmp_path: Path) -> None:
    async def test(platform: Emulator) -> None:
        with stuck_files(tmp_path / "drive") as drive:
            whole.media = drive.path
            await heartbeat(whole, await whole.start(platform, code=SOON), "the provisioning media")

    on(Emulator(), test)


@pytest.mark.root
def test_the_console_says_that_imds_is_waited_for(whole: WholeRun, tmp_path: Path) -> None:
    whole.media = tmp_path / "none"

    async def test(platform: Emulator) -> None:
        await heartbeat(whole, await whole.start(platform, code=SOON), "the provisioning media or IMDS")

    on(Emulator(faults=STALLED_IMDS), test)


@pytest.mark.root
def test_the_console_says_which_step_is_waited_for(whole: WholeRun, tmp_path: Path) -> None:
    use_usermod(whole)
    shim = Shim(tmp_path, "usermod")

    async def test(platform: Emulator) -> None:
        process = await whole.start(platform, code=SOON, before=shim.cover)
        await shim.started(process)
        await heartbeat(whole, process, "ensure-user")

    on(Emulator(), test)


@pytest.mark.root
@pytest.mark.parametrize(("fails", "subject"), [(False, "the Ready report"), (True, "the failure report")])
def test_the_console_says_that_wireserver_is_waited_for(whole: WholeRun, fails: bool, subject: str) -> None:
    if fails:
        (whole.root / "etc/hostname").mkdir()

    async def test(platform: Emulator) -> None:
        await heartbeat(whole, await whole.start(platform, code=SOON), f"WireServer to accept {subject}")

    on(Emulator(faults=STALLED_HEALTH), test)


# -- calls in a process of their own -----------------------------------------------------------------------------------


def test_a_call_apart_returns_plain_values() -> None:
    assert asyncio.run(in_child_process(lambda: (b"x" * 1_000_000, None, "text", 1))) == (
        b"x" * 1_000_000,
        None,
        "text",
        1,
    )


def test_an_error_comes_back_from_a_call_apart() -> None:
    def fail() -> None:
        raise ProvisioningError(Reason.MEDIA_CORRUPT, structure="anchor")

    with pytest.raises(ProvisioningError, match="anchor") as caught:
        asyncio.run(in_child_process(fail))
    assert caught.value.reason is Reason.MEDIA_CORRUPT


def test_a_system_error_comes_back_from_a_call_apart() -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(in_child_process(lambda: bool(os.stat("/no/such/file"))))


def test_a_defect_comes_back_from_a_call_apart_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        asyncio.run(in_child_process(lambda: 1 // 0))


def test_a_call_apart_that_is_killed_is_an_error() -> None:
    with pytest.raises(ChildProcessError):
        asyncio.run(in_child_process(lambda: os.kill(os.getpid(), signal.SIGKILL)))


def test_a_call_apart_cannot_touch_what_is_open_here() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(OSError, match="Bad file descriptor"):
        asyncio.run(in_child_process(lambda: os.write(theirs.fileno(), b"x")))


def test_a_program_that_a_call_apart_starts_reads_and_writes_nothing_of_ours() -> None:
    def look() -> tuple[str, int, str]:
        child = subprocess.run(["cat"], check=False, capture_output=True, text=True)
        return os.readlink("/proc/self/fd/2"), child.returncode, child.stdout + child.stderr

    assert asyncio.run(in_child_process(look)) == ("/dev/null", 0, "")


def test_a_call_apart_that_is_given_up_is_killed(tmp_path: Path) -> None:
    reader, writer = os.pipe()

    async def give_up() -> None:
        os.mkfifo(tmp_path / "fifo")
        async with asyncio.timeout(0.1):
            await in_child_process(lambda: bool((tmp_path / "fifo").read_bytes()))

    start = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert time.monotonic() - start < 10
    os.close(reader)
    os.close(writer)
