"""However a run ends, it is told: to the platform, to the host, on the console and in a file."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest

from minprov.emulator.faults import Faults, Step
from minprov.emulator.platform import Emulator, Exchange
from tests.whole_run import WholeRun, ended, on, terminate

pytestmark = pytest.mark.root

HEALTH = ("health", "provisioning-health")
STALLED_HEALTH = Faults(steps={name: (Step(times=math.inf, drop="stall"),) for name in HEALTH})


def spoil_hostname(whole: WholeRun) -> None:
    """Make the property fail: a directory stands where the file belongs."""
    (whole.root / "etc/hostname").mkdir()


def test_success_is_told_everywhere_and_to_the_host_before_the_platform(whole: WholeRun) -> None:
    at_the_post: list[str] = []

    def look(exchange: Exchange) -> None:
        if exchange.endpoint == "health":
            at_the_post.append(whole.host_report())

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform))
        assert run.status == 0, run.stderr
        assert [report.state for report in platform.health_reports] == ["Ready"]
        vm_id = whole.report()["vm_id"]
        assert at_the_post[0].startswith("result=success|agent=minprov/")
        assert f"|vm_id={vm_id}|timestamp=" in at_the_post[0]
        [line] = whole.console_lines()
        assert line.startswith("minprov: provisioned, Ready reported in ")
        assert whole.report()["health"] == {"reported": "Ready", "channel": "xml", "attempts": 1}

    on(Emulator(on_request=look), test)


def test_a_failure_is_told_everywhere_in_the_same_words(whole: WholeRun) -> None:
    spoil_hostname(whole)
    at_the_post: list[str] = []

    def look(exchange: Exchange) -> None:
        if exchange.endpoint == "health":
            at_the_post.append(whole.host_report())

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform))
        assert run.status == 74
        [health] = platform.health_reports
        assert (health.state, health.substatus) == ("NotReady", "ProvisioningFailed")
        assert health.description
        assert health.description.startswith("result=error|reason=failed to write to the file system|")
        assert len(health.description.encode()) <= 512
        assert at_the_post == [health.description]
        assert whole.console_lines() == [f"minprov: {health.description}"]
        report = whole.report()
        assert report["error"]["reason"] == "failed to write to the file system"
        assert report["error"]["data"]["path"] == "/etc/hostname"
        assert report["health"]["reported"] == "NotReady"

    on(Emulator(on_request=look), test)


def test_status_prints_what_the_run_printed(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform))
        status = await whole.status()
        assert status.status == 0
        assert status.stdout.startswith(run.stdout)
        assert "\nWhen\n" in status.stdout
        status = await whole.status("--json")
        assert json.loads(status.stdout) == whole.report()

    on(Emulator(), test)


def test_status_after_a_failure_says_why(whole: WholeRun) -> None:
    spoil_hostname(whole)

    async def test(platform: Emulator) -> None:
        await ended(await whole.start(platform))
        status = await whole.status()
        assert "Failed: failed to write to the file system: path=/etc/hostname" in status.stdout
        assert "Reported NotReady by xml" in status.stdout

    on(Emulator(), test)


def test_a_run_that_cannot_load_its_client_fails_loudly(whole: WholeRun, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/aiohttp.py").write_text("raise ImportError('broken on purpose')\n")

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, env={"PYTHONPATH": str(tmp_path / "broken")}))
        assert run.status == 70
        assert "broken on purpose" in run.stderr
        told = "result=error|reason=program cannot be loaded|"
        assert whole.host_report().startswith(told)
        assert whole.console_lines()[0].startswith(f"minprov: {told}")
        assert whole.report()["error"]["data"] == {"detail": "broken on purpose"}

    on(Emulator(), test)


def test_provisioned_but_not_reported_is_told_on_this_side_and_posted_by_the_next_run(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, seconds=4))
        assert run.status == 69
        told = "result=error|reason=provisioned but not reported|"
        assert whole.host_report().startswith(told)
        assert whole.console_lines()[-1].startswith(f"minprov: {told}")
        assert whole.report()["error"]["reason"] == "provisioned but not reported"
        assert platform.health_reports == []
        assert not any("NotReady" in exchange.request.body.decode() for exchange in platform.requests)
        hostname = (whole.root / "etc/hostname").stat()

        platform.faults = Faults()
        run = await ended(await whole.start(platform))
        assert run.status == 0
        assert [report.state for report in platform.health_reports] == ["Ready"]
        assert whole.host_report().startswith("result=success|")
        assert (whole.root / "etc/hostname").stat() == hostname

    on(Emulator(faults=Faults(steps={name: (Step(times=math.inf, status=500),) for name in HEALTH})), test)


def test_a_failure_report_that_nobody_takes_can_be_cut_short(whole: WholeRun) -> None:
    spoil_hostname(whole)
    posted = asyncio.Event()

    def look(exchange: Exchange) -> None:
        if exchange.endpoint == "health":
            posted.set()

    async def test(platform: Emulator) -> None:
        process = await whole.start(platform)
        await posted.wait()
        run = await terminate(process)
        assert run.seconds < 5
        assert run.status == 74
        assert "NotReady not reported: terminated by a signal" in run.stderr
        assert whole.report()["error"]["reason"] == "failed to write to the file system"
        assert whole.report()["health"]["reported"] is None

    on(Emulator(faults=STALLED_HEALTH, on_request=look), test)


ALWAYS = math.inf
# Only the telling is short: how soon there is something to tell depends on the machine.
SOON_GIVEN_UP = """
import asyncio
from minprov.__main__ import main
from minprov.bounds import Bounds
def cut(self, _grace):
    self.deadline = asyncio.get_running_loop().time() + 1
Bounds.extend = cut
main()
"""
NO_REPORT = {
    "stalled": Step(times=ALWAYS, drop="stall"),
    "reset": Step(times=ALWAYS, drop="reset"),
    "failing": Step(times=ALWAYS, status=500),
    "forbidden": Step(times=ALWAYS, status=403),
    "garbage": Step(times=ALWAYS, raw=b"\xff\0<"),
}


@pytest.mark.parametrize("step", NO_REPORT.values(), ids=NO_REPORT)
def test_a_failure_that_cannot_be_reported_is_still_on_console_and_disk(whole: WholeRun, step: Step) -> None:
    spoil_hostname(whole)
    faults = Faults(steps=dict.fromkeys(HEALTH, (step,)))

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, code=SOON_GIVEN_UP))
        assert run.status == 74
        assert "NotReady not reported: " in run.stderr
        assert platform.health_reports == []
        report = whole.report()
        assert report["error"]["reason"] == "failed to write to the file system"
        assert report["health"]["reported"] is None
        [line] = whole.console_lines()
        assert line == f"minprov: {whole.host_report()}"
        assert "|reason=failed to write to the file system|" in line

    on(Emulator(faults=faults), test)


def test_another_provisioner_is_left_the_last_word(whole: WholeRun) -> None:
    (whole.root / "run/cloud-init").mkdir(parents=True)
    (whole.root / "run/cloud-init/enabled").touch()

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform))
        assert run.status == 78
        assert platform.requests == []
        assert whole.pool.read_bytes() == b""
        assert "another provisioning agent is enabled" in whole.console_lines()[0]
        assert whole.report()["error"]["data"] == {"agent": "cloud-init"}

    on(Emulator(), test)


def test_a_report_that_cannot_be_stored_is_told_all_the_same(whole: WholeRun) -> None:
    (whole.root / "var/lib").mkdir(parents=True)
    (whole.root / "var/lib/minprov").touch()

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform))
        assert run.status == 74
        assert "report not stored" in run.stderr
        [health] = platform.health_reports
        assert health.description == whole.host_report()
        assert whole.console_lines() == [f"minprov: {health.description}"]

    on(Emulator(), test)


def test_a_refused_configuration_is_told(whole: WholeRun, tmp_path: Path) -> None:
    whole.settings["hostnam.policy"] = "required"
    # Without a configuration the defaults hold: the machine's own console and pool.
    (tmp_path / "hyperv").mkdir()
    (tmp_path / "hyperv/.kvp_pool_1").touch()
    cover = (
        f"mount --bind {whole.console} /dev/console;"
        f"mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/hyperv; mount --bind {tmp_path}/hyperv /var/lib/hyperv"
    )

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, before=cover))
        assert run.status == 78
        [health] = platform.health_reports
        assert health.description
        assert "|key=hostnam.policy|" in health.description
        assert whole.console_lines() == [f"minprov: {health.description}"]
        assert health.description.encode() in (tmp_path / "hyperv/.kvp_pool_1").read_bytes()
        assert whole.report()["error"]["data"]["nearest"] == "hostname.policy"

    on(Emulator(), test)


def test_a_trial_on_the_emulated_platform_tells_neither_console_nor_host(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, "--emulated"))
        assert run.status == 0
        assert whole.console_lines() == []
        assert whole.pool.read_bytes() == b""

    on(Emulator(), test)


def test_the_journal_is_told_how_severe_a_line_is(whole: WholeRun) -> None:
    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, env={"JOURNAL_STREAM": "8:1"}))
        assert run.status == 0
        lines = run.stderr.splitlines()
        assert "<6>minprov: Ready reported: channel=xml attempts=1" in lines
        assert all(line.startswith(("<6>minprov: ", "<7>minprov: ")) for line in lines)

    on(Emulator(), test)
