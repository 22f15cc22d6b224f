"""Whether sshd would let a user in, judged from the settings that sshd says are in force, as its auth.c does.

What is in the way is named with its file and line, for which `formats` reads the configuration: only then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System
from minprov.properties import pam
from minprov.properties.reachable import require_reachable
from minprov.properties.sshd_settings import Settings, files_matching, groups_of_user

# Programs that end at once, as a shell or as a forced command.
NO_SHELLS = frozenset({"false", "git-shell", "halt", "nologin", "shutdown", "sync", "true"})
PUBKEY = "publickey"
PRIVATE = ("10.0.0.5", "172.16.0.5", "192.168.0.5")  # RFC 1918: a neighbour of the VM's


class Key(NamedTuple):
    """What of a key decides whether sshd takes it."""

    type: str
    rsa_bits: int | None
    """None for a key of another type."""


class Obstacle(NamedTuple):
    """A setting of sshd that is in the way, and how it reads."""

    reason: Reason
    setting: str
    value: str


async def require_login(
    system: System,
    username: str,
    groups: tuple[str, ...],
    answers: Sequence[Settings],
    obstacle_of: Callable[[Settings, set[str]], Obstacle | None],
) -> None:
    """Raise `ProvisioningError` unless there is an address, not the machine's own, from which nothing is in the way.

    A block for some addresses may be stricter, or laxer: as long as a login is possible, that is the image's business.
    """
    if answers:
        require_reachable(system, username, answers[0])
    by_group = any(settings.all("allowgroups") or settings.all("denygroups") for settings in answers)
    members = await groups_of_user(system, username, groups) if by_group else set()
    obstacles = [obstacle_of(settings, members) for settings in answers if not settings.local]
    if obstacles and None not in obstacles and obstacles[0]:
        raise await explained(system, obstacles[0], answers[0], groups)


async def admission_notes(
    system: System, username: str, answers: Sequence[Settings] | None, *, password: bool = False
) -> tuple[str, ...]:
    """Return what PAM cannot be asked, where sshd uses it: of passwords only what may refuse them is known.

    Raises `ProvisioningError` where it does not admit the user, who is in the account database by now.
    """
    if not answers or not answers[0].is_on("usepam"):
        return ()
    service = answers[0].one("pamservicename") or "sshd"
    hosts = [settings.connection["addr"] for settings in answers if not settings.local]
    notes = await pam.require_admission(system, service, username, *hosts, *PRIVATE, *pam.hosts_named(system))
    if password and (judge := pam.find_judge_of_passwords(system, service)):
        notes += (f"PAM is not asked whether it takes the password: {judge.module} in {judge.file}",)
    return notes


async def explained(
    system: System, obstacle: Obstacle, settings: Settings, groups: tuple[str, ...]
) -> ProvisioningError:
    """Return the error for an obstacle, with the place where it is written."""
    from minprov.formats.sshd_config import Connection, find_line, read_lines

    lines = read_lines(lambda pattern: files_matching(system, pattern))
    connection = Connection(**settings.connection)
    members = await groups_of_user(system, connection.user, groups)
    line = find_line(lines, obstacle.setting.lower(), connection, members)
    return ProvisioningError(
        obstacle.reason,
        username=connection.user,
        setting=f"{obstacle.setting} {obstacle.value}",
        file=line.file if line else "the default of sshd",
        line=line.number if line else None,
    )


def key_obstacle(
    settings: Settings, user: str, groups: set[str], keys: Sequence[Key], *, password: bool
) -> Obstacle | None:
    """Return what keeps a user out who has these keys, and perhaps a password as well."""
    if obstacle := _admission_obstacle(settings, user, groups):
        return obstacle
    if not settings.is_on("pubkeyauthentication"):
        return Obstacle(Reason.KEYS_NOT_ACCEPTED, "PubkeyAuthentication", "no")
    accepted = settings.one("pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes")
    if accepted and not any(_algorithms(key.type) & set(accepted.split(",")) for key in keys):
        return Obstacle(Reason.KEYS_NOT_ACCEPTED, "PubkeyAcceptedAlgorithms", accepted[:80])
    # Red Hat's had another name before OpenSSH had one.
    shortest = settings.one("requiredrsasize", "rsaminsize")
    if shortest.isdecimal() and all(key.rsa_bits is not None and key.rsa_bits < int(shortest) for key in keys):
        return Obstacle(Reason.KEYS_NOT_ACCEPTED, "RequiredRSASize", shortest)
    files = settings.one("authorizedkeysfile")
    if files.lower() == "none":
        return Obstacle(Reason.KEYS_NOT_ACCEPTED, "AuthorizedKeysFile", files)
    return methods_obstacle(settings, {PUBKEY, *(("password",) if password else ())}, keys=len(keys))


def password_obstacle(settings: Settings, user: str, groups: set[str], *, keys: bool) -> Obstacle | None:
    """Return what keeps a user out who has a password, and perhaps keys as well."""
    if obstacle := _admission_obstacle(settings, user, groups):
        return obstacle
    if user == "root" and settings.one("permitrootlogin").lower() != "yes":
        return Obstacle(Reason.LOGIN_REFUSED, "PermitRootLogin", settings.one("permitrootlogin"))
    return methods_obstacle(settings, {"password", *((PUBKEY,) if keys else ())})


def needs_keyboard_interactive(settings: Settings) -> bool:
    """Tell whether no list of methods can be gone through without keyboard-interactive, as with one-time passwords."""
    lists = _method_lists(settings)
    return bool(lists) and all("keyboard-interactive" in methods for methods in lists)


def _admission_obstacle(settings: Settings, user: str, groups: set[str]) -> Obstacle | None:
    """Evaluate the lists in the order in which sshd does, and then what it would run."""
    address = settings.connection["addr"]
    for pattern in _words(settings, "denyusers"):
        if _names_user(pattern, user, address):
            return Obstacle(Reason.LOGIN_REFUSED, "DenyUsers", pattern)
    allowed = _words(settings, "allowusers")
    # A rule for addresses of its own lets the user in from there.
    if allowed and not any(_names_user(pattern, user, None) for pattern in allowed):
        return Obstacle(Reason.LOGIN_REFUSED, "AllowUsers", " ".join(allowed))
    for pattern in _words(settings, "denygroups"):
        if _matches_any(groups, pattern):
            return Obstacle(Reason.LOGIN_REFUSED, "DenyGroups", pattern)
    allowed = _words(settings, "allowgroups")
    if allowed and not any(_matches_any(groups, pattern) for pattern in allowed):
        return Obstacle(Reason.LOGIN_REFUSED, "AllowGroups", " ".join(allowed))
    if user == "root" and settings.one("permitrootlogin").lower() in ("no", "forced-commands-only"):
        return Obstacle(Reason.LOGIN_REFUSED, "PermitRootLogin", settings.one("permitrootlogin"))
    forced = settings.one("forcecommand")
    program = forced.split(" ")[0].rpartition("/")[2]
    if program in NO_SHELLS or program.startswith("internal-sftp"):
        return Obstacle(Reason.FORCED_COMMAND, "ForceCommand", forced)
    if settings.one("maxsessions") == "0":
        return Obstacle(Reason.FORCED_COMMAND, "MaxSessions", "0")
    if (directory := settings.one("chrootdirectory") or "none").lower() not in ("none", "/"):
        return Obstacle(Reason.FORCED_COMMAND, "ChrootDirectory", directory)
    return None


def methods_obstacle(settings: Settings, available: set[str], *, keys: float = math.inf) -> Obstacle | None:
    """Look for a list of methods that can be gone through; what PAM asks by keyboard-interactive only PAM knows.

    Each time that a list names `publickey` sshd wants another key.
    """
    lists = _method_lists(settings)
    if settings.is_on("kbdinteractiveauthentication", "challengeresponseauthentication") and settings.is_on("usepam"):
        available = available | {"keyboard-interactive"}
    if not lists or any(set(methods) <= available and methods.count(PUBKEY) <= keys for methods in lists):
        return None
    value = " ".join(settings.all("authenticationmethods"))
    return Obstacle(Reason.LOGIN_METHODS, "AuthenticationMethods", value)


def _method_lists(settings: Settings) -> list[list[str]]:
    lists = _words(settings, "authenticationmethods")
    return [] if lists == ["any"] else [[method.split(":")[0] for method in one.split(",")] for one in lists]


def _words(settings: Settings, name: str) -> list[str]:
    return " ".join(settings.all(name)).split()


def _names_user(pattern: str, user: str, address: str | None) -> bool:
    from minprov.formats.sshd_config import matches, matches_addresses

    name, at, host = pattern.rpartition("@")
    if not at:
        return matches(user, pattern)
    return matches(user, name) and (address is None or matches_addresses(address, host))


def _matches_any(groups: Iterable[str], pattern: str) -> bool:
    from minprov.formats.sshd_config import matches

    return any(matches(group, pattern) for group in groups)


def _algorithms(kind: str) -> set[str]:
    """Return the algorithms by which a key of a type can sign."""
    return {"rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"} if kind == "ssh-rsa" else {kind}
