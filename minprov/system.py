"""The machine that is provisioned: the running one, or a tree that will be one.

Owns how files are read and replaced and how tools are started; must not know what for. Three rules hold everywhere:

- A path is resolved as the provisioned system would resolve it: in a tree, an absolute link stays inside the tree.
- A file is replaced as a whole: written beside its place with its final owner and mode, synced, then renamed. Whoever
  looks, and whenever the power goes, sees the old file or the new one.
- A tool gets an argument list, a built environment, secrets on stdin only, and a time limit.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import aiofiles.os

from minprov.errors import ProvisioningError, Reason
from minprov.paths import resolve_beneath

T = TypeVar("T")

MAX_FILE_SIZE = 16 << 20
READ_SIZE = 1 << 16
MAX_TOOL_MESSAGE = 200
TOOL_TIMEOUT = 60.0
REAP_LIMIT = 0.5
"""Seconds for a tool that was killed to be gone: one that waits for a device may take its time."""
TOOL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class System:
    """A system by its root directory; ``/`` is the running one."""

    def __init__(self, root: str = "/") -> None:
        self.root = os.path.realpath(root)
        self._directories: dict[str, str] = {}

    @property
    def live(self) -> bool:
        """Whether this is the running system, with a hostname to set and services to reload."""
        return self.root == "/"

    # -- paths ---------------------------------------------------------------------------------------------------------

    def path(self, path: str) -> str:
        """Return where `path` of the provisioned system is on this one, links followed as that system would.

        A directory is resolved once: nothing but a run like this one is at work in a tree.
        """
        if self.live:
            return path
        directory, name = os.path.split(path)
        if name in ("", ".", ".."):
            return resolve_beneath(self.root, path)
        if directory not in self._directories:
            self._directories[directory] = resolve_beneath(self.root, directory)
        candidate = os.path.join(self._directories[directory], name)
        return resolve_beneath(self.root, path) if os.path.islink(candidate) else candidate

    def exists(self, path: str) -> bool:
        """Tell whether the file is there."""
        return os.path.exists(self.path(path))

    # -- files ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """Open a directory for the calls below; raises FileNotFoundError when it is not there."""
        descriptor = os.open(self.path(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, path: str) -> bytes | None:
        """Return a file's contents, or None when it is not there."""
        try:
            return read_file(None, self.path(path), follow=True)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise file_error(error, path) from error

    def read_text(self, path: str) -> str:
        """Return a system file as text, empty when it is not there; undecodable bytes survive a round trip."""
        return (self.read(path) or b"").decode(errors="surrogateescape")

    async def replace(self, path: str, contents: bytes, *, mode: int) -> None:
        """Replace a file of root's, creating the directories above it (0755) as needed."""
        parent = os.path.dirname(path)
        try:
            if not self.exists(parent):
                await in_thread(make_directories, self.path(parent), 0o755)
            with self.directory(parent) as directory:
                await replace_file(directory, os.path.basename(path), contents, mode=mode)
        except OSError as error:
            raise file_error(error, path) from error
        await self.restore_label(path)

    async def remove(self, path: str) -> None:
        """Remove a file that may be there."""
        try:
            with suppress(FileNotFoundError), self.directory(os.path.dirname(path)) as directory:
                os.unlink(os.path.basename(path), dir_fd=directory)
                await in_thread(sync, ".", directory)
        except OSError as error:
            raise file_error(error, path) from error

    async def sync(self, directory: str) -> None:
        """Have on disk what a tool has renamed in a directory."""
        try:
            await in_thread(sync, self.path(directory))
        except OSError as error:
            raise file_error(error, directory) from error

    def check_writable(self, path: str) -> None:
        """Raise `ProvisioningError` when `path` is on a file system that refuses to be written, even by root."""
        if os.geteuid() != 0:
            return
        existing = self.path(path)
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        if not os.access(existing, os.W_OK):
            raise ProvisioningError(Reason.WRITE_FAILED, path=path, detail="read-only file system")

    async def restore_label(self, path: str) -> None:
        """Give a path, and all below it, the SELinux label its place calls for, where SELinux is on."""
        if self.live and self.exists("/sys/fs/selinux/enforce") and (restorecon := self.find("restorecon")):
            await self.run([restorecon, "-R", path])

    # -- tools ---------------------------------------------------------------------------------------------------------

    def find(self, tool: str) -> str | None:
        """Return the path of a tool on this machine, or None."""
        for directory in TOOL_PATH.split(":"):
            candidate = f"{directory}/{tool}"
            if os.access(candidate, os.X_OK):
                return candidate
        return None

    def account_tool(self, tool: str) -> list[str] | None:
        """Return the start of a command line that runs a shadow-utils program on this system's account database."""
        found = self.find(tool)
        if found is None:
            return None
        return [found] if self.live else [found, "--root", self.root]

    def own_tool(self, *names: str) -> list[str] | None:
        """Return the start of a command line that runs a program inside the system itself, the first that it has.

        A name with a space is a program and its first argument, as in ``busybox adduser``.
        """
        for name in names:
            tool, *arguments = name.split(" ")
            for directory in TOOL_PATH.split(":"):
                path = f"{directory}/{tool}"
                if self.exists(path):
                    return [*self._enter(), path, *arguments]
        return None

    def _enter(self) -> list[str]:
        if self.live:
            return []
        return [self.find("chroot") or "chroot", self.root]

    async def run(
        self, argv: list[str], *, stdin: bytes = b"", limit: float = TOOL_TIMEOUT, output: int | None = None
    ) -> str:
        """Run a tool to its end and return what it printed on stdout, or all of it into `output`, an open file.

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
                    env={"PATH": TOOL_PATH, "LANG": "C.UTF-8", "HOME": "/root"},
                    start_new_session=True,
                )
            except (FileNotFoundError, PermissionError) as error:
                raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool=name, detail=error.strerror) from error
            ended = asyncio.get_running_loop().run_in_executor(None, process.wait)
            try:
                await asyncio.wait([ended], timeout=limit)
            finally:
                in_time = ended.done()
                if not in_time:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
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
            return _contents(stdout).decode(errors="replace")


def file_error(error: OSError, path: str) -> ProvisioningError:
    """Translate an operating system error on a file of the provisioned system."""
    reason = Reason.NOT_PERMITTED if error.errno in (errno.EPERM, errno.EACCES) else Reason.WRITE_FAILED
    return ProvisioningError(reason, path=path, detail=error.strerror)


async def in_thread(function: Callable[..., T], *args: object, **kwargs: object) -> T:
    """Run a blocking call beside the event loop."""
    result: T = await aiofiles.os.wrap(function)(*args, **kwargs)
    return result


def read_file(directory: int | None, name: str, *, follow: bool = False, owner: int | None = None) -> bytes | None:
    """Return the contents of a regular file in an open directory, or None when it is not there.

    With an owner, who may make links, it must not be a second name of somebody else's file. Raises OSError, with ELOOP
    for a link unless `follow`.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        return None
    # Calls of `os`, not a file object: that makes three times as many, and each may cost a wait for other threads.
    try:
        found = os.fstat(descriptor)
        if owner is not None and found.st_nlink > 1 and found.st_uid != owner:
            raise OSError(errno.EMLINK, "A second name for a file of another owner")
        contents = bytearray()
        while len(contents) < MAX_FILE_SIZE and (piece := os.read(descriptor, READ_SIZE)):
            contents += piece
        return bytes(contents)
    finally:
        os.close(descriptor)


async def replace_file(
    directory: int, name: str, contents: bytes, *, mode: int, owner: tuple[int, int] = (0, 0)
) -> None:
    """Replace a file in an open directory as a whole, durably; raises OSError.

    The name of the temporary file is fixed, so that a killed run leaves at most one, and the next run takes its place.
    """
    temporary = f".{name}.minprov"

    def replace() -> None:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
        try:
            left = memoryview(contents)
            while left:
                left = left[os.write(descriptor, left) :]
            if owner != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        sync(".", directory)  # by name, since fsync(2) refuses a descriptor opened with O_PATH

    await in_thread(replace)  # as one call: each costs a turn of the loop and of the import that goes on beside it


def make_directories(path: str, mode: int) -> None:
    """Create a directory, and those above it, where they are not there yet, durably; raises OSError."""
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        make_directories(parent, mode)
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            if not os.path.isdir(path):  # which it is when a step that runs at the same time was quicker
                raise
        sync(parent)


def sync(path: str, directory: int | None = None) -> None:
    """Have a file's contents, or a directory's entries, on disk: what is on other file systems is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    return os.pread(memory_file, MAX_FILE_SIZE, 0)


def _last_words(memory_file: int) -> str:
    output = _contents(memory_file).decode(errors="replace")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " / ".join(lines[-3:])[:MAX_TOOL_MESSAGE]
