"""What sshd has in force for a user: asked of sshd itself, once for each connection that can make a difference.

Without Match blocks that is one. With them, sshd is asked for an address inside each and for one outside; `formats`
finds them, and is loaded only then.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress

from minprov.errors import ProvisioningError
from minprov.formats.accounts import existing_groups, find_gid, groups_of
from minprov.machine.files import file_error
from minprov.machine.system import System
from minprov.machine.tools import run_tool
from minprov.properties.name_service import find_groups, find_user

CONFIG, DIRECTORY = "/etc/ssh/sshd_config", "/etc/ssh"
PASSWD, GROUP = "/etc/passwd", "/etc/group"
PID_FILE = "/run/sshd.pid"
# sshd wants it even to print its configuration. Its unit makes it, which has not run yet at first boot.
PRIVILEGE_SEPARATION_DIRECTORY = "/run/sshd"
# From the internet (RFC 5737) to the address that the first VM of a subnet gets.
OUTSIDE = {"host": "203.0.113.9", "addr": "203.0.113.9", "laddr": "10.0.0.4", "lport": "22", "rdomain": ""}
# In a mount namespace of its own, a dry run can have what sshd wants: its directory, and a host key if there is none.
ASIDE = 'mount -n -t tmpfs none /run && mkdir /run/sshd && ssh-keygen -q -t ed25519 -N "" -f /run/key && exec "$@"'
ASIDE_KEY = "/run/key"
# What sshd says of each key when it is asked for details; of those at its default places that it cannot load it says
# nothing otherwise: sshd.c.
LOADED_KEY = r"private host key #([0-9]+): (\S+)"


class Settings:
    """The settings in force for one connection, by their names in lower case; lists have several values."""

    def __init__(self, connection: dict[str, str], values: dict[str, list[str]], loaded: dict[str, str]) -> None:
        self.connection = connection
        self._values = values
        self.host_keys = loaded
        """The types of the keys that sshd has loaded, by their paths; empty where it does not tell."""

    def all(self, *names: str) -> list[str]:
        """Return the values of the first name that sshd knows: older ones have other names."""
        return next((self._values[name] for name in names if name in self._values), [])

    def one(self, *names: str) -> str:
        """Return the value, or an empty string for a setting that this sshd does not have."""
        return next(iter(self.all(*names)), "")

    def is_on(self, *names: str) -> bool:
        """Tell whether a switch is on."""
        return self.one(*names).lower() == "yes"

    @property
    def local(self) -> bool:
        """Whether the connection is one of the machine with itself."""
        return self.connection["addr"] == "::1" or self.connection["addr"].startswith("127.")


async def ask_sshd(system: System, username: str, groups: tuple[str, ...] = ()) -> list[Settings] | None:
    """Return the settings for a user who is, or will be, in the groups: from outside first, then for other connections.

    None where sshd cannot be asked: in a tree, or without privileges. While a change is tried it is waited for, so that
    nobody is told what may be taken back.
    """
    async with system.asking:
        return await ask_in_change(system, username, groups)


async def ask_in_change(system: System, username: str, groups: tuple[str, ...] = ()) -> list[Settings] | None:
    """Return what `ask_sshd` does, to the one task that has `System.asking`."""
    if not system.live:
        return None
    sshd = system.own_tool("sshd")
    if sshd is None:
        return None
    texts = read_config(system)
    connections = [{"user": username, **OUTSIDE}]
    state: tuple[object, ...] = (tuple(texts.items()),)
    if any(values_of(text, "match") for text in texts.values()):
        from minprov.formats.sshd_config import Connection, connections_of, read_lines

        lines = read_lines(lambda pattern: files_matching(system, pattern))
        members = await groups_of_user(system, username, groups)
        found = connections_of(lines, Connection(**connections[0]), members)
        connections = [connection._asdict() for connection in found]
        state += (system.read(PASSWD), system.read(GROUP))  # by which Match decides
    answers = []
    for connection in connections:
        key = (*state, *(connection.values() if len(state) > 1 else ()))
        if key not in system.answers:
            try:
                system.answers[key] = await _ask(system, sshd, connection)
            except ProvisioningError:
                if os.geteuid() == 0:
                    raise
                return None
        answers.append(Settings(connection, *system.answers[key]))
    return answers


async def reload_sshd(system: System) -> None:
    """Have sshd, if it runs, read its files again by SIGHUP: the one way that works under every init system.

    Raises `ProvisioningError` where it does not accept them: it would end.
    """
    sshd = system.own_tool("sshd")
    pid = _running_sshd() if system.live else None
    if sshd is None or pid is None:
        return
    await run_tool([*sshd, "-t"])
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGHUP)


def _running_sshd() -> int | None:
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        with open(PID_FILE, encoding="ascii") as stream:
            pid = int(stream.read())
        with open(f"/proc/{pid}/comm", encoding="ascii") as stream:
            return pid if stream.read().strip() == "sshd" else None
    return None


def read_config(system: System) -> dict[str, str]:
    """Return the texts of sshd's configuration, each by its path."""
    texts: dict[str, str] = {}
    waiting = [CONFIG]
    while waiting:
        for path, text in files_matching(system, waiting.pop()):
            if path not in texts:
                texts[path] = text
                patterns = " ".join(values_of(text, "include")).replace('"', "").split()
                waiting += [pattern if pattern.startswith("/") else f"{DIRECTORY}/{pattern}" for pattern in patterns]
    return texts


def values_of(text: str, *keywords: str) -> list[str]:
    """Return what follows a keyword, in lower case, on each line that begins with it."""
    found = []
    for line in text.splitlines():
        words = line.replace("=", " ", 1).split(None, 1)
        if len(words) == 2 and words[0].lower() in keywords:
            found.append(words[1])
    return found


def files_matching(system: System, pattern: str) -> list[tuple[str, str]]:
    """Return the path and the text of each file that a pattern of Include names."""
    paths = [pattern]
    if set(pattern) & set("*?["):
        import glob  # which a configuration without patterns has no use for

        directory, name = os.path.split(pattern)
        real = system.path(directory)
        names = (os.path.relpath(found, real) for found in sorted(glob.glob(f"{real}/{name}")))
        paths = [os.path.join(directory, name) for name in names]
    texts = ((path, system.read(path)) for path in paths)
    return [(path, text.decode(errors="surrogateescape")) for path, text in texts if text is not None]


async def groups_of_user(system: System, username: str, planned: tuple[str, ...] = ()) -> set[str]:
    """Return the names of the groups that a user is in, those of the system's directory service too, or will be in."""
    account = find_user(system, username)
    database = system.read_text(GROUP)
    names = groups_of(database, username)
    if account is None:
        return names | {username} | (set(planned) & existing_groups(database))
    primary = {name for name in existing_groups(database) if find_gid(database, name) == account.gid}
    return names | primary | await find_groups(system, username)


async def _ask(
    system: System, sshd: list[str], connection: dict[str, str]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    words = ",".join(f"{word}={value}" for word, value in connection.items())
    try:
        printed = await _print_settings(system, sshd, words)
    except ProvisioningError as error:
        if "test mode" not in error.data.get("detail", ""):
            raise
        # Before OpenSSH 7.7 there were no routing domains.
        printed = await _print_settings(system, sshd, words.removesuffix(",rdomain="))
    values: dict[str, list[str]] = {}
    for line in printed.splitlines():
        name, _, value = line.partition(" ")
        values.setdefault(name.lower(), []).append(value.strip())
    loaded = {key[1]: key[2] for line in values.pop("debug1:", ()) if (key := re.match(LOADED_KEY, line))}
    numbered = [(str(number), path) for number, path in enumerate(values.get("hostkey", ())) if path != ASIDE_KEY]
    return values, {path: loaded[number] for number, path in numbered if number in loaded}


async def _print_settings(system: System, sshd: list[str], words: str) -> str:
    command = [*sshd, "-T", "-d", "-C", words]
    if not system.look_only:
        try:
            with system.directory(PRIVILEGE_SEPARATION_DIRECTORY, make=0o755):
                pass
        except OSError as error:
            raise file_error(error, PRIVILEGE_SEPARATION_DIRECTORY) from error
    elif os.geteuid() == 0 and (unshare := system.own_tool("unshare")):
        command = [*unshare, "--mount", "sh", "-c", ASIDE, "sh", *command, "-h", ASIDE_KEY]
    return await run_tool(command, with_messages=True)
