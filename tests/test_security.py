"""The lines of docs/security.md that no other test holds, and that each line has a test."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import minprov.network.transport
from minprov.actions import ExecuteCustomData, WriteAuthorizedKeys
from minprov.config import Execute, Options
from minprov.emulator.faults import Faults, Step
from minprov.emulator.platform import Emulator, Exchange
from minprov.emulator.vm import SAMPLE_VM
from minprov.errors import ProvisioningError
from minprov.machine.system import System
from minprov.model import Evidence, InstanceMetadata
from minprov.network.retry import AttemptFailed, Endpoint
from minprov.network.transport import MAX_BODY, Transport
from minprov.outcome.timeline import Timeline
from minprov.plan import plan_provisioning
from minprov.properties import authorized_keys
from minprov.sources.imds import IMDS
from minprov.wire import WIRESERVER
from tests.whole_run import WholeRun, ended, on, terminate

ROOT = Path(__file__).parent.parent
USER = "azureuser"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBMcHWTvNl7ozF7F7qgeovwoswR3mlYkSNEabFK8ZeEL azureuser@sample"
OK, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n"


# -- the link ----------------------------------------------------------------------------------------------------------


async def ask(url: str, endpoint: Endpoint = IMDS) -> bytes:
    async with Transport(Timeline()) as transport:
        deadline = time.monotonic() + 30
        return await transport.attempt(endpoint, "GET", url, headers={"Metadata": "true"}, deadline=deadline)


def answer(head: bytes, piece: bytes = b"", endpoint: Endpoint = IMDS) -> bytes:
    """Ask a server that sends the head, and then the piece without end, and return what the client makes of it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        try:
            while piece:
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    async def main() -> bytes:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await ask(f"http://127.0.0.1:{port}/", endpoint)

    return asyncio.run(main())


SENSELESS = {
    "nothing": b"",
    "no http": b"\0" * 100,
    "status": b"HTTP/1.1 99999 X\r\n\r\n",
    "negative length": OK + b"Content-Length: -5\r\n\r\nabc",
    "huge length": OK + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length and chunks": OK + CHUNKED + b"Content-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "huge chunk": OK + CHUNKED + b"\r\nFFFFFFFFFFFFFFFFFFFF\r\nabc",
    "long header": OK + b"A: " + b"b" * 20000 + b"\r\n\r\n",
    "many headers": OK + b"A: b\r\n" * 400_000 + b"\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
}
ENDLESS = {
    "line": (b"", b"H" * 65536),
    "headers": (OK, b"A: b\r\n" * 100),
    "body": (OK + b"\r\n", b"x" * 65536),
    "chunks": (OK + CHUNKED + b"\r\n", b"1\r\nx\r\n" * 100),
    "chunk extension": (OK + CHUNKED + b"\r\n1;", b"e" * 65536),
    "trailers": (OK + CHUNKED + b"\r\n0\r\n", b"X: y\r\n" * 1000),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
}


@pytest.mark.parametrize("head", SENSELESS.values(), ids=SENSELESS)
def test_a_senseless_answer_is_a_failed_attempt(head: bytes) -> None:
    with pytest.raises(AttemptFailed):
        answer(head)


@pytest.mark.parametrize(("head", "piece"), ENDLESS.values(), ids=ENDLESS)
def test_an_endless_answer_is_cut_off(head: bytes, piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minprov.network.transport, "ATTEMPT_LIMIT", 0.5)
    with pytest.raises(AttemptFailed):
        answer(head, piece)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_not_followed(status: int) -> None:
    asked: list[str] = []

    class Trap(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Trap) as trap:
        threading.Thread(target=trap.serve_forever, daemon=True).start()
        with pytest.raises(AttemptFailed) as refused:
            answer(b"HTTP/1.1 %d X\r\nLocation: http://127.0.0.1:%d/\r\n\r\n" % (status, trap.server_port))
        trap.shutdown()
    assert refused.value.final
    assert asked == []


def test_a_compressed_answer_is_not_unpacked() -> None:
    bomb = b" " * (64 * MAX_BODY)  # 64 KiB on the wire

    async def test(platform: Emulator) -> None:
        body = await ask(f"{platform.imds_url}/metadata/instance?api-version=2021-08-01")
        assert body.startswith(b"\x1f\x8b")
        assert len(body) < MAX_BODY

    on(Emulator(faults=Faults(steps={"instance": (Step(body=bomb, gzip=True),)})), test)


@pytest.mark.parametrize("asked_for", ["31536000", "9" * 5000, "٣" * 100])
@pytest.mark.parametrize(("endpoint", "longest"), [(IMDS, 30), (WIRESERVER, 60)])
def test_of_a_retry_after_counts_what_its_endpoint_may_ask_for(
    asked_for: str, endpoint: Endpoint, longest: int
) -> None:
    with pytest.raises(AttemptFailed) as failed:
        answer(f"HTTP/1.1 429 X\r\nRetry-After: {asked_for}\r\n\r\n".encode(), endpoint=endpoint)
    assert failed.value.delay == longest


def test_user_data_which_anybody_in_the_vm_can_read_is_never_run() -> None:
    instance = InstanceMetadata(computer_name="web-01", admin_username=USER, user_data=b"#!/bin/sh\n")
    instance = instance._replace(ssh_public_keys=SAMPLE_VM.ssh_public_keys)
    plan = plan_provisioning(Evidence(instance=instance), Options(custom_data_execute=Execute.BEFORE_READY))
    assert "write-user-data" in [step.name for step in plan.steps]
    assert not [step for step in plan.steps if isinstance(step.action, ExecuteCustomData)]


# -- the disc ----------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_a_reader_that_crashes_takes_nothing_down_with_it(whole: WholeRun) -> None:
    code = (
        "import os, minprov.discs.search\n"
        "minprov.discs.search.find_media = lambda *_, **__: os.kill(os.getpid(), 11)\n"
        "from minprov.__main__ import main\nmain()\n"
    )

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, code=code))
        assert run.status == 0
        assert whole.report()["sources"]["media"]["state"] == "failed"
        assert "ended without a word" in whole.report()["sources"]["media"]["detail"]

    on(Emulator(), test)


# -- home directories --------------------------------------------------------------------------------------------------

PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "nothing": lambda _place, _victim: None,
    "a file": lambda place, _victim: place.write_text("# mine\n"),
    "a link": lambda place, victim: place.symlink_to(victim),
    "a second name": lambda place, victim: os.link(victim, place),
    "a loop of links": lambda place, _victim: place.symlink_to(place.name),
    "a directory": lambda place, _victim: place.mkdir(),
    "a FIFO": lambda place, _victim: os.mkfifo(place),
}


@pytest.mark.root
@pytest.mark.timeout(10)
@pytest.mark.parametrize("as_temporary", PLANTED)
@pytest.mark.parametrize("as_file", PLANTED)
def test_whatever_is_planted_beside_the_keys_nothing_of_roots_is_changed_or_shown(
    tmp_path: Path, as_file: str, as_temporary: str
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(f"{USER}:x:1000:1000::/home/{USER}:/bin/sh\n")
    victim = tmp_path / "etc/shadow"
    victim.write_text("of root alone")
    victim.chmod(0o600)
    before = victim.stat().st_uid, victim.stat().st_mode
    directory = tmp_path / f"home/{USER}/.ssh"
    directory.mkdir(parents=True)
    PLANTED[as_file](directory / "authorized_keys", victim)
    PLANTED[as_temporary](directory / ".authorized_keys.minprov", victim)
    for path in (directory, *directory.iterdir()):
        if path.is_dir() or not path.exists() or not path.samefile(victim):
            os.chown(path, 1000, 1000, follow_symlinks=False)

    system, action = System(str(tmp_path)), WriteAuthorizedKeys(username=USER, keys=(KEY,))
    with suppress(ProvisioningError):
        asyncio.run(authorized_keys.converge(system, action))
        assert KEY in (directory / "authorized_keys").read_text()

    assert (victim.stat().st_uid, victim.stat().st_mode) == before
    assert victim.read_text() == "of root alone"
    theirs = [path for path in directory.iterdir() if path.is_file() and path.stat().st_uid == 1000]
    assert not [path for path in theirs if "of root" in path.read_text()]


# -- files and secrets -------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(whole: WholeRun, umask: int) -> None:
    for policy in ("user", "ssh-keys", "sudo"):
        whole.settings[f"{policy}.policy"] = "required"
    etc = whole.root / "etc"
    for name, text in (("passwd", f"{USER}:x:1000:1000::/home/{USER}:/bin/sh\n"), ("group", ""), ("sudoers", "")):
        (etc / name).write_text(text)
    sudo = whole.root / "usr/bin/sudo"  # in a tree it is there to be found, and is not run
    sudo.parent.mkdir(parents=True, exist_ok=True)
    sudo.touch(0o755)

    async def test(platform: Emulator) -> None:
        earlier = os.umask(umask)
        try:
            process = await whole.start(platform)
        finally:
            os.umask(earlier)
        run = await ended(process)
        assert run.status == 0, run.stderr
        modes = {
            str(path.relative_to(whole.root)): stat.S_IMODE(path.lstat().st_mode) for path in whole.root.rglob("*")
        }
        assert {mode for path, mode in modes.items() if path.startswith("var/lib/minprov/")} <= {0o600, 0o700}
        expected = {
            "var/lib/minprov": 0o700,
            "var/lib/minprov/report.json": 0o600,
            "var/lib/minprov/custom-data": 0o600,
            "etc/hostname": 0o644,
            "etc/sudoers.d": 0o755,
            "etc/sudoers.d/90-minprov": 0o440,
            "home": 0o755,
            f"home/{USER}": 0o700,
            f"home/{USER}/.ssh": 0o700,
            f"home/{USER}/.ssh/authorized_keys": 0o600,
        }
        assert {path: modes[path] for path in expected} == expected

    on(Emulator(), test)


@pytest.mark.root
def test_no_core_file_can_hold_the_password(whole: WholeRun, tmp_path: Path) -> None:
    whole.media = tmp_path / "none"
    asked = asyncio.Event()

    def look(exchange: Exchange) -> None:
        if exchange.endpoint == "instance":
            asked.set()

    async def test(platform: Emulator) -> None:
        process = await whole.start(platform)
        await asked.wait()
        limits = await asyncio.to_thread(Path(f"/proc/{process.pid}/limits").read_text)
        await terminate(process)
        assert re.search(r"Max core file size +0 +0 ", limits)

    on(Emulator(faults=Faults(steps={"instance": (Step(drop="stall"),)}), on_request=look), test)


# -- the document ------------------------------------------------------------------------------------------------------


def test_every_test_that_the_security_review_names_is_collected() -> None:
    text = (ROOT / "docs/security.md").read_text()
    collected = {
        node.name
        for file in ROOT.glob("tests/**/test_*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named
    assert named <= collected
    cases = set(re.findall(r"`case ([\w-]+)`", text))
    assert cases
    assert cases <= {file.parent.name for file in ROOT.glob("tests/cases/*/case.toml")}


def test_every_line_of_the_security_review_names_its_test() -> None:
    lines = (ROOT / "docs/security.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| attempt |")]
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"`(test_\w+|case [\w-]+|make \w+)`", row)] == []
