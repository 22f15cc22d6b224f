"""Tools of the system, run to their end: an argument list, a built environment, secrets on stdin only, a time limit."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.limits import REAP_LIMIT, RESOLVER_LIMIT, TOOL_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_OUTPUT = 16 << 20
MAX_MESSAGE = 200
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# sudo looks up the host's name, which no server may know yet: resolv.conf(5) has it ask for 10 s and more.
ENVIRONMENT = {"LANG": "C.UTF-8", "HOME": "/root", "RES_OPTIONS": f"timeout:{RESOLVER_LIMIT} attempts:1"}


def search_path() -> str:
    """Return where tools are looked for: the usual directories, then those of the service, as NixOS has them."""
    own = os.environ.get("PATH", "").split(":")
    return ":".join(dict.fromkeys([*PATH.split(":"), *(directory for directory in own if os.path.isabs(directory))]))


def find_tool(tool: str) -> str | None:
    """Return the path of a tool on this machine, or None."""
    for directory in search_path().split(":"):
        candidate = f"{directory}/{tool}"
        if is_program(candidate):
            return candidate
    return None


def is_program(path: str) -> bool:
    """Tell whether there is a file that may be executed; a directory, which may be entered, is none."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


async def run_tool(
    argv: list[str],
    *,
    stdin: bytes = b"",
    limit: float = TOOL_LIMIT,
    output: int | None = None,
    with_messages: bool = False,
    environment: Mapping[str, str] = ENVIRONMENT,
    umask: int = -1,
    stop: signal.Signals = signal.SIGKILL,
) -> str:
    """Run a tool to its end and return what it printed on stdout; with `output`, an open file, all goes there.

    With `with_messages` what it printed on stderr comes after that.

    Of the environment PATH is always there; a umask below 0 is this process's. `stop` ends the tool, and what it has
    started in its session, at the limit, and when this is cancelled.

    Raises `ProvisioningError`: TOOL_NOT_FOUND, or TOOL_FAILED with the tool's exit status and last words.
    """
    name = os.path.basename(argv[0])
    with _filled_pipe(stdin) as source, _memory_file() as stdout, _memory_file() as stderr:
        if output is not None:
            stdout = stderr = output
        try:
            # By vfork: a fork of this process takes ten times as long, and slows it down for some time after.
            process = subprocess.Popen(  # noqa: ASYNC220  # it waits for the program to start, which is short
                argv,
                stdin=source,
                stdout=stdout,
                stderr=stderr,
                env={"PATH": search_path(), **environment},
                umask=umask,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:
            detail = "its interpreter is not there" if is_program(argv[0]) else error.strerror
            raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool=name, detail=detail) from error
        except OSError as error:  # it is no program, or there is no room for one more process
            raise ProvisioningError(Reason.TOOL_FAILED, tool=name, detail=error.strerror) from error
        ended = asyncio.get_running_loop().run_in_executor(None, process.wait)
        try:
            await asyncio.wait([ended], timeout=limit)
        finally:
            in_time = ended.done()
            if not in_time:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, stop)
                await asyncio.wait([ended], timeout=REAP_LIMIT)
        if not in_time:
            raise ProvisioningError(Reason.TOOL_FAILED, tool=name, detail=f"no end after {limit:g} s")
        if process.returncode:
            raise ProvisioningError(
                Reason.TOOL_FAILED,
                tool=name,
                **{"signal" if process.returncode < 0 else "exit_status": abs(process.returncode)},
                detail=_last_words(stderr) or _last_words(stdout) or None,
            )
        if output is not None:
            return ""
        printed = _contents(stdout) + (_contents(stderr) if with_messages else b"")
        return printed.decode(errors="replace")


@contextmanager
def _filled_pipe(contents: bytes) -> Iterator[int]:
    """Yield the reading end of a pipe that holds the contents, which must fit: 64 KiB, pipe(7).

    Filled before the tool starts, it takes no part in the event loop and cannot fail when a tool does not read it.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            os.write(writer, contents)
        finally:
            os.close(writer)
        yield reader
    finally:
        os.close(reader)


@contextmanager
def _memory_file() -> Iterator[int]:
    """Yield a file for what a tool prints, which nobody need read before the tool ends, nor wait for after that."""
    descriptor = os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _contents(memory_file: int) -> bytes:
    return os.pread(memory_file, MAX_OUTPUT, 0)


def _last_words(file: int) -> str:
    try:
        output = _contents(file).decode(errors="replace")
    except OSError:  # the output went to what cannot be read again, such as the journal
        return ""
    # sshd is asked for details, which are no words on why it has failed.
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("debug1: ")]
    return " / ".join(lines[-3:])[:MAX_MESSAGE]
