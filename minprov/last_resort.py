"""Who tells the platform when the run itself cannot: a process of its own, which holds the deadline.

It is forked before anything is imported that could be broken, and waits. The run may hang with its file system, run out
of memory, or not be able to load; without a word from it the platform would wait for 40 minutes. A token decides who
speaks: whoever is about to send the first byte of a final report takes it, and nobody else reports after that. So there
is never both Ready and NotReady.

The token is one run's. Between two runs of the unit, systemd waits until no process of the first is left, this one
included: the unit's `KillMode` is the default. Where somebody kills a run by hand and starts another, Ready can be
reported before this NotReady. The lock of runs does not help: what is left of the killed run may hold it, too, and then
nobody would tell.

Imports the standard library and the time limits before there is something to tell, and goes without what it cannot
import then.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import time
from contextlib import suppress

from minprov.limits import (
    LAST_RESORT_ATTEMPT_LIMIT,
    LAST_RESORT_FILE_LIMIT,
    LAST_RESORT_HANDED_OVER_LIMIT,
    LAST_RESORT_KVP_LIMIT,
    LAST_RESORT_PATIENCE,
    LAST_RESORT_PAUSE,
    LAST_RESORT_POLL,
    LAST_RESORT_POST_LIMIT,
    LEFT_BEHIND_LIMIT,
    RUN_LIMIT,
)

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

DEADLINE_PASSED, ENDED_UNTOLD = "provisioning deadline passed", "unhandled exception"
ACCEPTED_STATUSES = ([b"200"], [b"201"], [b"202"])  # those of `transport`
MAX_ANSWER = 1 << 16
MAX_DESCRIPTOR = 1 << 10
MAX_SETTINGS = 1 << 14
UNKNOWN_VM_ID = "00000000-0000-0000-0000-000000000000"
# The defaults of the configuration, for as long as that has not been read.
DEFAULTS: dict[str, Any] = {
    "timeout": RUN_LIMIT,
    "wireserver_url": "http://168.63.129.16",
    "console": "/dev/console",
    "kvp_pool": "/var/lib/hyperv/.kvp_pool_1",
    "root": "/",
    "state_dir": None,
    "vm_id": None,
    "phrase": ENDED_UNTOLD,
    "post_limit": LAST_RESORT_POST_LIMIT,
    "hooks": None,
}


class LastResort:
    """The run's end of it: create it as early as can be, and `end` it when there is nothing left to tell."""

    def __init__(self, **settings: object) -> None:
        """Start the process that waits, with what is known of the settings so far."""
        self._handed_over = False
        self._token, writer = os.pipe2(os.O_CLOEXEC)
        os.write(writer, b"t")  # a byte in a pipe is read once, whoever reads
        os.close(writer)
        reader, self._control = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)  # what is written at once is read at once, pipe(2)
        if os.fork() == 0:
            _wait(self._token, reader, DEFAULTS | settings)
        os.close(reader)

    def know(self, **settings: object) -> None:
        """Tell what has become known: values that `marshal` knows, by the names of `DEFAULTS`."""
        with suppress(OSError):
            os.write(self._control, marshal.dumps(settings))

    def claim(self) -> bool:
        """Take the token: tell whether the run may report. Whoever has it keeps it."""
        return _take(self._token)

    def hand_over(self, phrase: str, detail: str) -> None:
        """Have it told by the process that waits, once the run has ended, why the run could not report."""
        self.know(phrase=phrase, detail=detail, post_limit=LAST_RESORT_HANDED_OVER_LIMIT)
        self._handed_over = True

    def end(self) -> None:
        """Say that the run ends: nobody reports any more, unless that was handed over."""
        if not self._handed_over:
            self.claim()
        with suppress(OSError):
            os.close(self._control)


class NoLastResort:
    """For a run that tells nobody, or that cannot have one: it may always speak."""

    def know(self, **settings: object) -> None:
        """Do nothing."""

    def claim(self) -> bool:
        """Return True."""
        return True

    def hand_over(self, phrase: str, detail: str) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


_has_token = False


def _take(token: int) -> bool:
    """Take the token, or tell whether it is this process that has it."""
    global _has_token  # one for each process, as there is one run
    _has_token = _has_token or bool(os.read(token, 1))
    return _has_token


def _wait(token: int, control: int, settings: dict[str, Any]) -> NoReturn:
    """Be the process that waits: until the run has ended, or until it has not in time."""
    try:
        _detach(token, control)
        started = time.monotonic()
        phrase = DEADLINE_PASSED
        while (left := started + settings["timeout"] + LAST_RESORT_PATIENCE - time.monotonic()) > 0:
            if select.select([control], [], [], left)[0]:
                message = os.read(control, MAX_SETTINGS)
                if not message:
                    phrase = settings["phrase"]
                    break
                with suppress(ValueError, EOFError):  # longer than a pipe takes at once: it goes without
                    settings |= marshal.loads(message)  # noqa: S302  # from our own parent
        if _take(token):
            _tell(settings, phrase)
            if settings["hooks"]:
                from minprov.machine.own_program import become

                become(*settings["hooks"])
    finally:
        os._exit(0)


def _detach(token: int, control: int) -> None:
    """Let go of what is the run's: whoever reads its output to the end shall not wait for this process."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are for the run, which may have something to say
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, the end of a child cannot be waited for
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    low, high = sorted((token, control))
    os.closerange(3, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, MAX_DESCRIPTOR)


def _tell(settings: dict[str, Any], phrase: str) -> None:
    """Tell every channel, each bounded: the console, the host, the platform, and the file that `status` reads."""
    vm_id = settings["vm_id"] or UNKNOWN_VM_ID
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    report = f"result=error|reason={phrase}|agent=minprov|told_by=last resort|vm_id={vm_id}|timestamp={timestamp}"
    with suppress(Exception):  # it is only said more fully by what may be broken
        from minprov.report import encode_failure

        data = {"told_by": "last resort", "detail": settings.get("detail") or "the run did not tell it itself"}
        report = encode_failure(phrase, data, agent="minprov", vm_id=vm_id, timestamp=timestamp)
    _bounded(LAST_RESORT_FILE_LIMIT, lambda: _write_console(settings["console"], report))
    _bounded(LAST_RESORT_KVP_LIMIT, lambda: _tell_host(settings["kvp_pool"], report))
    _bounded(settings["post_limit"], lambda: _post(settings["wireserver_url"], report))
    _bounded(LAST_RESORT_FILE_LIMIT, lambda: _store(settings["state_dir"], settings["root"], phrase, vm_id))


def _bounded(seconds: float, work: Callable[[], None]) -> None:
    """Run it in a process that can be left behind, for a file system or a device may hold it for ever."""
    try:
        child = os.fork()
    except OSError:  # no further process may be had: who is last in line may go untold, then
        with suppress(Exception):
            work()
        return
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
            signal.setitimer(signal.ITIMER_REAL, max(LEFT_BEHIND_LIMIT, seconds))
            with suppress(Exception):
                work()
        finally:
            os._exit(0)
    until = time.monotonic() + seconds
    while time.monotonic() < until and os.waitpid(child, os.WNOHANG)[0] == 0:
        time.sleep(LAST_RESORT_POLL)


def _write_console(console: str, report: str) -> None:
    if console:
        descriptor = os.open(console, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.write(descriptor, f"minprov: {report}\r\n".encode(errors="replace"))


def _tell_host(pool: str, report: str) -> None:
    if pool:
        from minprov.outcome.kvp import put

        put(pool, "PROVISIONING_REPORT", report)


def _store(state_dir: str | None, root: str, phrase: str, vm_id: str) -> None:
    from minprov.errors import ProvisioningError, Reason
    from minprov.machine.markers import DEFAULT_DIRECTORY
    from minprov.machine.paths import resolve_beneath
    from minprov.outcome.result import Result, to_document

    state_dir = state_dir or resolve_beneath(root, DEFAULT_DIRECTORY)
    error = ProvisioningError(next(reason for reason in Reason if reason.phrase == phrase), told_by="last resort")
    import json

    temporary = f"{state_dir}/.report.json.minprov"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.write(descriptor, json.dumps(to_document(Result(vm_id=vm_id, error=error)), indent=2).encode())
    os.rename(temporary, f"{state_dir}/report.json")


def _post(url: str, report: str) -> None:
    """Post NotReady until it is accepted: one answer that is none shall not be the end of it."""
    while True:  # who waits for it ends it
        with suppress(Exception):
            return _attempt(url, report)
        time.sleep(LAST_RESORT_PAUSE)


def _attempt(url: str, report: str) -> None:
    """Post NotReady once: as XML for the current goal state, else as JSON, which needs none."""
    from minprov.report import build_health_json

    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    address = (host, int(port or 80))
    try:
        goal_state = _request(address, "GET", "/machine/?comp=goalstate", b"", {})
        body = _health_xml(goal_state, report)
        _request(address, "POST", "/machine?comp=health", body, {"Content-Type": "text/xml;charset=utf-8"})
    except Exception:  # whatever is broken, this needs less
        body = build_health_json(state="NotReady", substatus="ProvisioningFailed", description=report)
        headers = {"Content-Type": "application/json", "x-ms-guest-agent-name": "minprov"}
        _request(address, "POST", "/provisioning/health", body, headers)


def _health_xml(goal_state: bytes, report: str) -> bytes:
    """Build the health document from the bare words of a goal state: what parses XML may be what is broken."""
    import re

    from minprov.model import GoalState
    from minprov.report import build_health_xml

    words = []
    for name in (b"Incarnation", b"ContainerId", b"InstanceId"):
        found = re.search(b"<" + name + rb"\s*>\s*([^<]*?)\s*<", goal_state)
        if found is None:
            raise ValueError("no goal state")
        words.append(found[1].decode())
    return build_health_xml(GoalState(*words), state="NotReady", substatus="ProvisioningFailed", description=report)


def _request(address: tuple[str, int], method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Make one request by a plain socket and return the answer; raises OSError, ValueError when it is refused."""
    import socket

    lines = [f"{method} {path} HTTP/1.0", f"Host: {address[0]}", "x-ms-version: 2012-11-30", "x-ms-agent-name: minprov"]
    lines += [f"{name}: {value}" for name, value in headers.items()] + [f"Content-Length: {len(body)}"] * bool(body)
    with socket.create_connection(address, timeout=LAST_RESORT_ATTEMPT_LIMIT) as connection:
        connection.sendall("\r\n".join((*lines, "", "")).encode() + body)
        answer = b""
        while len(answer) < MAX_ANSWER and (piece := connection.recv(4096)):
            answer += piece
    if answer.split(b" ", 2)[1:2] not in ACCEPTED_STATUSES:
        raise ValueError("not accepted")
    return answer
