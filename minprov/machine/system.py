"""The machine that is provisioned: the running one, or a tree that will be one.

Owns where its files and tools are; must not know what for. A path is resolved as the provisioned system would resolve
it: in a tree, an absolute link stays inside the tree. `files` has how files are replaced, `tools` how tools are run.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.machine.blocking import in_thread
from minprov.machine.directories import opened_directory
from minprov.machine.files import file_error, read_file, replace_file, sync, write_draft
from minprov.machine.journal import Journal
from minprov.machine.manifest import FILE, SAVED, Effect, digest
from minprov.machine.paths import resolve_beneath
from minprov.machine.tools import find_tool, is_program, run_tool, search_path

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

SECOND = 1_000_000_000
TICK = SECOND // 50  # the longest is a hundredth, of a kernel with HZ=100


class System:
    """A system by its root directory; ``/`` is the running one."""

    def __init__(self, root: str = "/", *, look_only: bool = False) -> None:
        self.root = os.path.realpath(root)
        self.journal = Journal()
        self.look_only = look_only
        """Whether nothing may be changed, as in a dry run: not even what programs need to be asked."""
        self.answers: dict[object, Any] = {}
        """What programs said, each under all that it depends on; to be filled by one task at a time."""
        self.asking = asyncio.Lock()
        self._directories: dict[str, str] = {}
        self._files: dict[str, tuple[_State, bytes]] = {}
        self._tools: dict[str, str] = {}
        self._has_labels = self.live and self.exists("/sys/fs/selinux/enforce")
        self.directory_accounts: dict[str, str] = {}
        """Entries as in passwd(5) of accounts that are adopted although only a directory service has them."""
        self.directory_answers = True
        """False once the directory service has given no answer: it is not asked a second time."""

    @property
    def live(self) -> bool:
        """Whether this is the running system, with a hostname to set and services to reload."""
        return self.root == "/"

    # -- paths ---------------------------------------------------------------------------------------------------------

    def path(self, path: str) -> str:
        """Return where `path` of the provisioned system is on this one, links followed as that system would.

        A directory is resolved once: nothing but a run like this one is at work in a tree.

        Raises:
            ProvisioningError: WRITE_FAILED, for a loop of links.

        """
        if self.live:
            return path
        try:
            return self._path_in_tree(path)
        except OSError as error:
            raise file_error(error, path) from error

    def _path_in_tree(self, path: str) -> str:
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

    def directory(self, path: str, *, make: int | None = None) -> AbstractContextManager[int]:
        """Open a directory for the calls below, as `opened_directory` does."""
        return opened_directory(self.root, path, make=make)

    def read(self, path: str) -> bytes | None:
        """Return a file's contents, or None when it is not there.

        One of /etc is looked at each time, and read again when it is another or has changed: all steps read the same.
        """
        try:
            real = self.path(path)
            if not path.startswith("/etc/"):
                return read_file(None, real, follow=True)
            found = _state(os.stat(real))
            before, contents = self._files.get(path, (None, None))
            if found != before:
                contents = read_file(None, real, follow=True)
                if contents is not None and len(contents) == found.size and _has_settled(found):
                    self._files[path] = found, contents
            return contents
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise file_error(error, path) from error

    def read_text(self, path: str) -> str:
        """Return a system file as text, empty when it is not there; undecodable bytes survive a round trip."""
        return (self.read(path) or b"").decode(errors="surrogateescape")

    async def replace(self, path: str, contents: bytes, *, mode: int) -> None:
        """Replace a file of root's, creating the directories above it (0755) as needed; the journal is told first."""
        await self._note(path, digest(contents))
        await self.replace_own(path, contents, mode=mode)

    async def remove(self, path: str) -> None:
        """Remove a file that may be there; the journal is told first."""
        if self.read(path) is not None:
            await self._note(path, None)
        await self.remove_own(path)

    async def remove_own(self, path: str) -> None:
        """Remove a file that may be there, of which the journal says nothing."""
        try:
            with suppress(FileNotFoundError), self.directory(os.path.dirname(path)) as directory:
                os.unlink(os.path.basename(path), dir_fd=directory)
                await in_thread(sync, ".", directory)
        except OSError as error:
            raise file_error(error, path) from error

    async def replace_own(self, path: str, contents: bytes, *, mode: int) -> None:
        """Replace a file that is the program's alone, of which the journal says nothing."""
        try:
            with self.directory(os.path.dirname(path), make=0o755) as directory:
                await replace_file(directory, os.path.basename(path), contents, mode=mode)
        except OSError as error:
            raise file_error(error, path) from error
        await self.restore_label(path)

    async def read_draft(self, command: list[str], path: str, contents: bytes, *, mode: int) -> None:
        """Have a program read a file by its path, which is added to the command; it is there for that long.

        Raises `ProvisioningError`, TOOL_FAILED with what the program says against it.
        """
        directory, name = os.path.split(path)
        try:
            with self.directory(directory, make=0o755) as opened:
                try:
                    await in_thread(write_draft, opened, name, contents, mode=mode)
                    await self.restore_label(path)
                    await run_tool([*command, path])
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=opened)
        except OSError as error:
            raise file_error(error, path) from error

    async def take_back(self, before: dict[str, bytes | None]) -> None:
        """Have files of root's be again as they were, by their paths; None is for one that was not there."""
        for path, contents in before.items():
            if contents is None:
                await self.remove(path)
            elif self.read(path) != contents:
                await self.replace(path, contents, mode=stat.S_IMODE(os.stat(self.path(path)).st_mode))

    async def note(self, *effects: Effect) -> None:
        """Have the journal say what is about to be done."""
        try:
            await self.journal.note(*effects)
        except OSError as error:
            raise file_error(error, self.journal.path) from error

    async def _note(self, path: str, sha256: str | None) -> None:
        before, saved, mode = self.read(path), None, None
        if before is not None and path.startswith(SAVED):
            saved, mode = before, stat.S_IMODE(os.stat(self.path(path)).st_mode)
        there = None if before is None else digest(before)
        await self.note(Effect(FILE, path, sha256=sha256, before=there, saved=saved, mode=mode))

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

    async def restore_label(self, *paths: str, recursive: bool = False) -> None:
        """Give what was written the SELinux label its place calls for, where SELinux is on."""
        if self._has_labels and (restorecon := find_tool("restorecon")):
            await run_tool([restorecon, *(["-R"] if recursive else []), *paths])

    # -- tools ---------------------------------------------------------------------------------------------------------

    def account_tool(self, tool: str) -> list[str] | None:
        """Return the start of a command line that runs a shadow-utils program on this system's account database."""
        found = find_tool(tool)
        if found is None:
            return None
        return [found] if self.live else [found, "--root", self.root]

    def own_tool(self, *names: str) -> list[str] | None:
        """Return the start of a command line that runs a program inside the system itself, the first that it has.

        A name with a space is a program and its first argument, as in ``busybox adduser``.
        """
        for name in names:
            tool, *arguments = name.split(" ")
            if tool not in self._tools:
                candidates = (f"{directory}/{tool}" for directory in search_path().split(":"))
                path = next((path for path in candidates if is_program(self.path(path))), None)
                if path is None:
                    continue
                self._tools[tool] = path
            return [*self._enter(), self._tools[tool], *arguments]
        return None

    def _enter(self) -> list[str]:
        if self.live:
            return []
        return [find_tool("chroot") or "chroot", self.root]


class _State(NamedTuple):
    """What of a file changes with its contents."""

    device: int
    inode: int
    size: int
    changed: int
    """Nanoseconds since the epoch."""


def _state(found: os.stat_result) -> _State:
    return _State(found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)


def _has_settled(found: _State) -> bool:
    """Tell whether another change would show: a file system keeps times by the kernel's clock tick, or by seconds."""
    tick = TICK if found.changed % SECOND else 2 * SECOND
    return abs(time.time_ns() - found.changed) > tick
