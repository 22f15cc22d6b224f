"""One case on one machine: prepare it, start the platform, run the program, and tell what was observed.

What is observed is compared with the case's expect.json, so nothing in it depends on time, ports or chance. Beside it
stand the faults that no expectation can allow: a secret that was shown, a dry run that wrote, an end that came late.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from minprov.emulator.media import media_files, write_media
from minprov.emulator.platform import Emulator
from minprov.emulator.sample import sample_media

from .changes import describe, find_changes, take_snapshot
from .disk import mount_faulty_file, mount_hanging_directory
from .machine import IMDS, WIRESERVER, Machine, Unavailable

if TYPE_CHECKING:
    from .case import Case, Run

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MEDIA = "/mnt/media"
PROGRAMS = "/var/cache/minprov-tests"
DEFAULT_TIMEOUT = 30.0
KILL_LIMIT = 10.0
"""Seconds after its deadline in which the program must be gone, whatever happens."""
LAST_RESORT_LIMIT = 6.0
"""Seconds in which the last resort has told: five for the platform, and a moment for each other channel."""
SEVERAL = 4
"""From so many requests on, how many there were is chance."""
SHELL_LIMIT = 60.0
HEARTBEAT = 10.0
"""Seconds for each line on the console that says what is being waited for."""
TEMPORARY = (".minprov", "/journal")
# What strerror(3) says in a static program, and in others.
MUSL_WORDS = {"Operation timed out": "Connection timed out", "Symbolic link loop": "Too many levels of symbolic links"}
# Details that come from an HTTP library, a clock or a kernel, and not from the program.
OF_THE_MOMENT = {"attempts", "detail", "url"}
BY_CHANCE = (
    r"(?<=SHA256:)[A-Za-z0-9+/]{43}|(?<=SHA256)[A-Za-z0-9+/]{43}",
    r"(?<=agent=minprov/)[^|]*|(?<=^minprov )[0-9.]+",  # the version
    r"(?<=timestamp=)[^|]*",
    r"(?<=attempts=)\d+",
    r"(?<= in )\d+\.\d(?= s$)",
    r"(?<=127\.0\.0\.1:)\d+",
    r"(?<=/minprov-sample-)[^/]*",
)
NETWORK = re.compile("IMDS|WireServer|provisioned but not reported|no provisioning source")


@dataclass
class Ended:
    """How the program ended and what it printed."""

    status: int
    stdout: str
    stderr: str
    console: str
    seconds: float


async def run_case(case: Case, machine: Machine) -> dict[str, Any]:
    """Run a case to its end: `observed` for each run, `faults` of any, `log` for whoever has to find out why."""
    observed: list[dict[str, Any]] = []
    faults: list[str] = []
    logs: list[str] = []
    took = 0.0
    if case.needs:
        _bring(case.needs, machine)
    if missing := [name for name in case.tools if not shutil.which(name, path=PATH)]:
        raise Unavailable(f"needs {' and '.join(missing)}")
    if case.libraries and _is_static(f"{machine.root}{machine.program[0]}"):
        raise Unavailable(f"needs {' and '.join(case.libraries)}, and a static program can load no library")
    for run in case.runs:
        seen, log, seconds = await _run(run, case, machine, faults)
        observed.append(seen)
        logs.append(log)
        took += seconds
    return {"observed": observed, "faults": faults, "log": logs, "seconds": took}


async def _run(run: Run, case: Case, machine: Machine, faults: list[str]) -> tuple[dict[str, Any], str, float]:
    machine.show_firmware(run.firmware, run.machine.vm_id)
    _put_config(run, machine)
    _put_media(run, machine)
    if run.prepare:
        _shell(run.prepare, machine, check=True)
    before = take_snapshot(machine.layers)
    for directory in run.hangs:
        mount_hanging_directory(machine.root + directory)
    if run.interface_after == 0:
        machine.raise_interface()
    else:
        machine.lower_interface()
    async with AsyncExitStack() as stack:
        platform = Emulator(
            run.machine,
            faults=run.faults,
            wireserver_address=(WIRESERVER, 80),
            imds_address=(IMDS, 80),
            host_plugin_address=None,
        )
        await stack.enter_async_context(platform)
        if 0 < run.interface_after < math.inf:
            raising = asyncio.get_running_loop().call_later(run.interface_after, machine.raise_interface)
            stack.callback(raising.cancel)
        with NamedTemporaryFile() as record:
            ended = await _start(run, case, machine, record.name)
            executions = record.read()
    changes = find_changes(machine.layers, before, take_snapshot(machine.layers))
    after = _shell(run.after, machine, check=False) if run.after else ""

    password = run.machine_on_media.password
    observed: dict[str, Any] = {"exit_status": ended.status}
    if run.json:
        try:
            text = ended.stdout or (_stored_result(machine) if run.shell else "")
            observed |= _settle_document(json.loads(text), privileged=machine.privileged)
        except ValueError:
            faults.append(f"stdout is no JSON document: {ended.stdout[:1000]}")
    else:
        observed["stdout"] = [_settle(line.rstrip()) for line in ended.stdout.splitlines()]
    # How often it says that it waits depends on how fast this machine is.
    lines = [line for line in ended.console.split("\r\n") if line]
    waits = [line for line in lines if line.startswith("minprov: waiting")]
    if len(waits) > ended.seconds / HEARTBEAT:
        faults.append(f"the console was told more than once in {HEARTBEAT:g} s: {waits}")
    if lines := [_settle(line) for line in lines if line not in waits]:
        observed["console"] = lines
    observed["hostname"] = socket.gethostname()
    observed["health"] = [
        f"{report.channel}: {report.state}" + (f", {_reason(report.description)}" if report.description else "")
        for report in platform.health_reports
    ]
    asked = [f"{exchange.endpoint} {exchange.verdict}" for exchange in platform.requests]
    if ended.status != os.EX_OK:
        # A failure may come before a source is asked, or while it is.
        asked = [name for name in asked if "health" in name]
    observed["requests"] = {
        name: count if (count := asked.count(name)) < SEVERAL else "several" for name in sorted(set(asked))
    }
    observed["changes"] = {path: describe(path, old, new, password) for path, (old, new) in sorted(changes.items())}
    if after:
        observed["after"] = after.splitlines()

    limit = run.within or deadline(run) + KILL_LIMIT
    if ended.seconds > limit:
        faults.append(f"ended after {ended.seconds:.1f} s, the limit is {limit:g} s")
    if "--dry-run" in run.arguments:
        faults += [f"a dry run changed {path}" for path in changes]
        faults += [f"a dry run posted to {item.endpoint}" for item in platform.requests if item.request.method != "GET"]
    if "Traceback (most recent call last)" in ended.stderr:
        faults.append("a traceback")
    outputs = {
        "stdout": ended.stdout.encode(),
        "stderr": ended.stderr.encode(),
        "the console": ended.console.encode(),
        "a command line or an environment": executions,
        **{f"a request to {item.endpoint}": repr(item.request).encode() for item in platform.requests},
    }
    if case.trace and b"/chpasswd\0" not in executions:
        faults.append(f"no execution of chpasswd was recorded: {executions!r}")
    if found := re.search(rb"\$(y|[256][ab]?)\$", executions):
        faults.append(f"a password's hash is in a command line or an environment: {executions[found.start() - 80 :]!r}")
    written = {path: path.encode() + b"\0" + new.contents for path, (_, new) in changes.items()}
    if password is not None:
        faults += [f"the password is in {place}" for place in _find(password.reveal(), outputs | written)]
    if data := run.machine_on_media.custom_data:
        faults += [f"customData is in {place}" for place in _find(data[:24].decode(errors="replace"), outputs)]
    if ended.status == os.EX_OK:
        kept = [path for path, (_, new) in changes.items() if new.kind != "removed"]
        faults += [f"left behind: {path}" for path in kept if path.endswith(TEMPORARY)]
    log = f"$ minprov {' '.join(run.arguments)}  # exit {ended.status} in {ended.seconds:.2f} s\n{ended.stderr}"
    if ended.status and not run.json:
        log += ended.stdout
    return observed, log, ended.seconds


def _stored_result(machine: Machine) -> str:
    """Return the document of a run that was given no stdout to print it on."""
    stored = Path(f"{machine.root}/var/lib/minprov/report.json")
    return stored.read_text(encoding="utf-8") if stored.exists() else ""


def _bring(program: str, machine: Machine) -> None:
    """Put a program in the tree that no package of Debian's has; scripts/ has what makes it."""
    try:
        shutil.copy2(f"{PROGRAMS}/{program}", f"{machine.root}/mnt/{program}")
    except FileNotFoundError as error:
        raise Unavailable(f"needs {PROGRAMS}/{program}, see tests/make-busybox") from error


def _put_config(run: Run, machine: Machine) -> None:
    if run.config is not None:
        directory = Path(f"{machine.root}/etc/minprov")
        directory.mkdir(exist_ok=True)
        (directory / "minprov.toml").write_text(run.config, encoding="utf-8")


def _is_static(program: str) -> bool:
    """Tell whether a program names no loader: one that is linked to libraries does, at the beginning of its file."""
    with open(program, "rb") as file:
        beginning = file.read(4096)
    return beginning.startswith(b"\x7fELF") and b"/ld-" not in beginning


def _put_media(run: Run, machine: Machine) -> None:
    """Put the media where the program is told to look, or into the drive."""
    vm, place = run.machine_on_media, Path(machine.root + MEDIA)
    if place.is_dir():
        shutil.rmtree(place)
    if run.media == "none":
        return
    files = media_files(vm)
    if run.ovf_env is not None:
        files["ovf-env.xml"] = run.ovf_env
    document = files["ovf-env.xml"].decode(errors="surrogateescape")
    for old, new in run.ovf_env_replace.items():
        assert old in document, f"{old!r} is not in the ovf-env"
        document = document.replace(old, new)
    files["ovf-env.xml"] = document.encode(errors="surrogateescape")
    if run.media == "ovf-env":
        place.write_bytes(files["ovf-env.xml"])
    elif run.media == "directory" or run.ovf_env is not None or run.ovf_env_replace:
        place.mkdir()
        for name, contents in files.items():
            (place / name).write_bytes(contents)
    elif run.media == "sample":
        with sample_media() as image:
            place.write_bytes(image.read_bytes())
    else:
        write_media(place, vm)
    if run.media_cut_at is not None:
        os.truncate(place, run.media_cut_at)
    if run.media == "drive":
        machine.insert_disc(str(place))
    elif (at := run.media_fails_at if run.media_hangs_at is None else run.media_hangs_at) is not None:
        contents = place.read_bytes()
        mount_faulty_file(str(place), contents, at=at, hangs=run.media_hangs_at is not None)


async def _start(run: Run, case: Case, machine: Machine, executions: str) -> Ended:
    provisions = not run.arguments or run.arguments[0].startswith("-")
    by_the_unit = provisions and not {"--root", "--dry-run"} & set(run.arguments)
    # To trace is more than the unit allows.
    sandbox = machine.sandbox if by_the_unit and not (run.user or run.inject or case.trace) else None

    asks_others = any("-url" in text for text in (*run.arguments, run.config or ""))

    def enter() -> None:
        if case.trace:
            return  # what records the executions is not of the tree, and does the rest
        if sandbox and not asks_others:
            sandbox.enter_addresses()
        os.chroot(machine.root)
        os.chdir("/")
        if sandbox:
            sandbox.enter()

    command = ["chroot", f"--userspec={run.user}", "/"] if run.user else []
    if run.shell:
        command += ["sh", "-c", run.shell, "sh"]
    if run.inject:
        command += ["strace", "-f", "-qq", "-o", "/dev/null", *shlex.split(run.inject)]
    command += [*machine.program, *run.arguments]
    if provisions and run.media not in ("none", "drive") and "--media" not in run.arguments:
        command += ["--media", MEDIA]
    if provisions and "--timeout" not in run.arguments:
        command += ["--timeout", f"{DEFAULT_TIMEOUT:g}"]
    if run.json:
        command.append("--json")
    if case.trace:
        command = [sys.executable, "-m", f"{__package__}.executions", machine.root, executions, *command]
    environment = {"PATH": PATH, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **run.environment}
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        preexec_fn=enter,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(deadline(run) + 2 * KILL_LIMIT):
            stdout, stderr = await process.communicate()
            seconds = time.monotonic() - started
            await _wait_for_last_resort(process.pid)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode is not None
    return Ended(
        status=process.returncode,
        stdout=stdout.decode(),
        stderr=stderr.decode(errors="replace"),
        console=machine.read_console(),
        seconds=seconds,
    )


async def _wait_for_last_resort(group: int) -> None:
    """Wait for the process that tells in the run's place why it could not; an orphan, it is this process's child.

    Another orphan may be a reader that a drive holds for ever.
    """
    until = time.monotonic() + LAST_RESORT_LIMIT
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-group, os.WNOHANG)[0] == 0:  # noqa: ASYNC222  # it does not wait
                await asyncio.sleep(0.01)


def deadline(run: Run) -> float:
    """Return the seconds that the program is given."""
    arguments = list(run.arguments)
    if "--timeout" in arguments:
        with suppress(ValueError):
            return float(arguments[arguments.index("--timeout") + 1])
    return DEFAULT_TIMEOUT


def _shell(script: str, machine: Machine, *, check: bool) -> str:
    command = ["chroot", machine.root, "/bin/sh", "-eu" if check else "-u", "-c", script]
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root"},
        timeout=SHELL_LIMIT,
    )
    if check and done.returncode:
        raise RuntimeError(f"prepare: exit {done.returncode}: {done.stdout}")
    return done.stdout


def _settle_document(document: dict[str, Any], *, privileged: bool) -> dict[str, Any]:
    """Return what of a result document is the same in every run."""
    settled: dict[str, Any] = {"outcome": document["outcome"]}
    if error := document["error"]:
        settled["reason"] = error["reason"]
        hidden = OF_THE_MOMENT if NETWORK.search(error["reason"]) else {"attempts"}
        if data := {key: _settle(value) for key, value in error["data"].items() if key not in hidden}:
            settled["data"] = data
    settled["sources"] = {name: source["state"] for name, source in document["sources"].items()}
    if document["outcome"] in ("failed", "already-provisioned"):
        # The run may end before or after a source's answer that it can do without, or before there is none.
        settled["sources"] = {
            name: state for name, state in settled["sources"].items() if name == "media" or state == "failed"
        }
    settled["properties"] = {name: f"{item['from']}: {item['value']}" for name, item in document["properties"].items()}
    if document["differences"]:
        settled["differences"] = document["differences"]
    # For an ordinary user the machine is the one that the tests run on, whatever its file systems are.
    if notes := [_settle(note) for note in document["notes"] if privileged or " is on tmpfs: " not in note]:
        settled["notes"] = notes
    if document["duties"]:
        settled["duties"] = {item["duty"]: item["policy"] for item in document["duties"]}
    settled["actions"] = {
        action["action"]: action["state"]
        + (", not verified" if action["state"] in ("changed", "unchanged") and action["verified"] is None else "")
        + ("" if action["policy"] == "required" else f" ({action['policy']})")
        for action in document["actions"]
    }
    if document["health"]["reported"]:
        settled["reported"] = document["health"]["reported"]
    return settled


def _settle(text: str) -> str:
    """Return a text without what differs from run to run, and without the field of a report that never does."""
    for musl, glibc in MUSL_WORDS.items():
        text = text.replace(musl, glibc)
    text = text.replace("|pps_type=None", "")
    text = text.replace(" / sudo: no valid sudoers sources found, quitting", "")  # not every version says so
    for pattern in BY_CHANCE:
        text = re.sub(pattern, "…", text)
    return text


def _reason(description: str) -> str:
    found = re.search(r"\|reason=([^|]*)", description)
    return found[1] if found else description


def _find(secret: str, places: dict[str, bytes]) -> list[str]:
    """Return the places that hold the secret, as it is or in base64 at any offset."""
    raw = secret.encode()
    forms = [raw, json.dumps(secret)[1:-1].encode()]
    # Of each alignment the part that does not depend on what stands before or behind.
    forms += [base64.b64encode(b"\0" * pad + raw)[4 if pad else 0 : -4] for pad in range(3)]
    return [place for place, contents in places.items() if any(form in contents for form in forms)]
