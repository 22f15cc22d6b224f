"""The SSH server's own keys: those that sshd names, as it will load them.

A generalised image has none, a damaged one such as sshd passes over. Each is made beside its place and then renamed, so
that a run killed half way leaves none that is half made.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from contextlib import suppress

from minprov.actions import EnsureHostKeys
from minprov.errors import ProvisioningError, Reason
from minprov.machine.blocking import in_thread
from minprov.machine.directories import is_held_by_root
from minprov.machine.files import file_error, read_file, sync
from minprov.machine.manifest import FILE, Effect, digest
from minprov.machine.system import System
from minprov.machine.tools import find_tool, run_tool
from minprov.properties.inspection import Inspection
from minprov.properties.sshd_settings import (
    ASIDE_KEY,
    Settings,
    ask_sshd,
    read_config,
    reload_sshd,
    values_of,
)

# Where the configuration names none, sshd(8): those of its types that every version has.
DEFAULTS = tuple(f"/etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519"))
KINDS = ("rsa", "ecdsa", "ed25519", "dsa")
MODE = 0o600
ANY_USER = "root"  # a host key is the same for all


async def inspect(system: System, action: EnsureHostKeys) -> Inspection:
    """Look whether sshd has a key to start with, and none that it would complain of."""
    if system.own_tool("sshd") is None:
        return Inspection(True, "sshd is not installed", verified=False)
    there = [path for path in find_written(system) if system.exists(path)]
    for path in there:
        if not _is_file(system, path):
            return Inspection(False, f"{path} is not a regular file")
    settings = await _settings(system) if there else None
    paths = [path for path in _named(system, settings) if system.exists(path)]
    if paths and _left_over(system):
        return Inspection(False, "left unfinished by a run that was killed")
    if not paths:
        return Inspection(False, "no keys")
    if action.anew and (others := _others(system, paths)):
        return Inspection(False, f"{others[0]} is not this VM's own")
    if settings and settings.host_keys:
        kinds = [settings.host_keys.get(path) for path in paths]
    else:
        kinds = await _kinds(system, paths)
    faults = [
        f"{path} {fault}" for path, kind in zip(paths, kinds, strict=True) if (fault := _fault(system, path, kind))
    ]
    if faults and os.geteuid() != 0:
        return Inspection(None, "cannot be seen without privileges")
    if not faults and not _is_accepted(kinds, settings):
        faults = ["none is of a type that HostKeyAlgorithms has"]
    return Inspection(not faults, ", ".join(faults) or f"{len(paths)} keys")


async def converge(system: System, action: EnsureHostKeys) -> None:
    """Mend what can be mended, set aside what cannot be loaded, and make what is lacking then."""
    written = find_written(system)
    try:
        for path in written:
            # sshd, which is asked now, would wait for somebody to write to a FIFO.
            if system.exists(path) and not _is_file(system, path):
                await in_thread(_set_aside, system.path(path))
        settings = await _settings(system) if any(system.exists(path) for path in written) else None
        named = _named(system, settings)
        for path in named:
            await in_thread(_mend, system, path)
        there = [path for path in named if system.exists(path)]
        kinds = await _kinds(system, there)
        damaged = [path for path, kind in zip(there, kinds, strict=True) if kind is None]
        lacking = damaged
        if not _is_accepted(kinds, settings):
            lacking = [*damaged, *(path for path in named if path not in there)]
        for path in damaged:
            await in_thread(_set_aside, system.path(path))
        others = _others(system, there) if action.anew else []
        made = [path for path in dict.fromkeys([*lacking, *others, *_left_over(system)]) if _kind_of(path) != "dsa"]
        await asyncio.gather(*(_make(system, path) for path in made))
        await system.note(*(effect for path in made for effect in _effects(system, path)))
        for path in made:
            await _put_in_place(system, path)
        system.answers.clear()  # sshd says which keys it has loaded
        if others:
            await reload_sshd(system)
    except OSError as error:
        raise file_error(error, os.path.dirname(written[0])) from error


def find_written(system: System) -> list[str]:
    """Return the keys that the configuration names, or those that sshd takes without."""
    texts = read_config(system).values()
    found = [value.split()[0].strip('"') for text in texts for value in values_of(text, "hostkey", "hostdsakey")]
    return [path for path in found if path != "none"] or list(DEFAULTS)


async def _settings(system: System) -> Settings | None:
    """Ask sshd, which answers only where it has a key that it can load."""
    try:
        answers = await ask_sshd(system, ANY_USER)
    except ProvisioningError:
        return None
    return answers[0] if answers else None


def _named(system: System, settings: Settings | None) -> list[str]:
    named = [path for path in settings.all("hostkey") if path != ASIDE_KEY] if settings else []
    return named or find_written(system)


async def _kinds(system: System, paths: list[str]) -> list[str | None]:
    """Return the type of each key, None for one that cannot be loaded."""
    return await asyncio.gather(*(_load(system.path(path)) for path in paths))


async def _load(path: str) -> str | None:
    keygen = find_tool("ssh-keygen")
    if keygen is None or os.stat(path).st_size == 0:
        return None
    try:
        public = await run_tool([keygen, "-y", "-P", "", "-f", path])
    except ProvisioningError as error:
        if error.reason is not Reason.TOOL_FAILED:
            raise
        return None
    return public.split(" ")[0]


def _fault(system: System, path: str, kind: str | None) -> str:
    found = os.stat(system.path(path))
    if found.st_uid != 0:
        return f"belongs to uid {found.st_uid}"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"has mode {stat.S_IMODE(found.st_mode):04o}"
    return "" if kind else "cannot be loaded"


def _is_accepted(kinds: list[str | None], settings: Settings | None) -> bool:
    """Tell whether one of the keys can be used with a client."""
    accepted = set(settings.one("hostkeyalgorithms").split(",")) if settings else set()
    rsa = {"rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"}
    return any(kind and (not accepted or accepted & (rsa if kind == "ssh-rsa" else {kind})) for kind in kinds)


def _is_file(system: System, path: str) -> bool:
    return os.path.isfile(system.path(path))


def _mend(system: System, path: str) -> None:
    """Give a key the owner and the mode with which sshd takes it, unless it may be a link of somebody else's."""
    with suppress(FileNotFoundError), system.directory(os.path.dirname(path)) as directory:
        if not is_held_by_root(directory):
            return
        descriptor = os.open(system.path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if found.st_uid != 0:
                os.fchown(descriptor, 0, 0)
            if stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(descriptor, MODE)
        finally:
            os.close(descriptor)


def _set_aside(path: str) -> None:
    """Keep what is no key beside its place; an empty file is not worth keeping."""
    if os.stat(path).st_size or not os.path.isfile(path):
        os.rename(path, f"{path}.damaged")


def _kind_of(path: str) -> str:
    name = os.path.basename(path)
    return next((kind for kind in KINDS if kind in name), "ed25519")


async def _make(system: System, path: str) -> None:
    keygen = find_tool("ssh-keygen")
    if keygen is None:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="ssh-keygen")
    directory, draft = os.path.split(_draft(path))
    with system.directory(directory, make=0o755) as opened:
        if (owner := os.fstat(opened).st_uid) not in (0, os.geteuid()):
            raise OSError(errno.EPERM, f"it belongs to uid {owner}, who could read the keys")
        _remove(opened, draft)
        try:
            await run_tool([keygen, "-q", "-t", _kind_of(path), "-N", "", "-f", system.path(_draft(path))])
        except ProvisioningError:
            _remove(opened, draft)
            raise


async def _put_in_place(system: System, path: str) -> None:
    directory, name = os.path.split(path)
    with system.directory(directory) as opened:
        await in_thread(_rename, opened, os.path.basename(_draft(path)), name)
    await system.restore_label(path, f"{path}.pub")


def _left_over(system: System) -> list[str]:
    """Return the keys that a killed run had made and not put in place."""
    effects = (effect for effect in system.journal.left_over if effect.kind == FILE and effect.inode is not None)
    return [effect.target for effect in effects if _is_private(effect.target) and not system.exists(effect.target)]


def _others(system: System, paths: list[str]) -> list[str]:
    """Return the keys that no run for this VM has made: of the image, or of another VM."""
    endings = ("", ".pub") if os.geteuid() == 0 else (".pub",)  # after a kill the private one may be the old one yet

    def is_ours(path: str) -> bool:
        contents = system.read(path)
        return contents is not None and system.journal.is_ours(path, digest(contents))

    return [path for path in paths if _kind_of(path) != "dsa" and not all(is_ours(path + ending) for ending in endings)]


def _is_private(path: str) -> bool:
    return not path.endswith(".pub")


def _draft(path: str) -> str:
    directory, name = os.path.split(path)
    return f"{directory}/.{name}.minprov"


def _effects(system: System, path: str) -> list[Effect]:
    """Return what the journal is to say of a pair: by inode, too, since they are there already, beside their place."""
    effects = []
    for ending in (".pub", ""):
        draft = system.path(_draft(path)) + ending
        contents = read_file(None, draft) or b""
        effects.append(Effect(FILE, path + ending, sha256=digest(contents), inode=os.stat(draft).st_ino))
    return effects


def _remove(directory: int, draft: str) -> None:
    for ending in (".pub", ""):
        with suppress(FileNotFoundError):
            os.unlink(draft + ending, dir_fd=directory)


def _rename(directory: int, draft: str, name: str) -> None:
    """Rename the pair, the private key last: it is what sshd looks for."""
    for ending in (".pub", ""):
        sync(draft + ending, directory)  # which ssh-keygen leaves to chance
        os.rename(draft + ending, name + ending, src_dir_fd=directory, dst_dir_fd=directory)
    sync(".", directory)
