"""Whether PAM admits the administrator, asked of PAM itself: pam_acct_mgmt(3), as sshd and sudo ask before a session.

Only where a service's account stack has more than the modules that the rest of the read-back stands for: the age of an
account is `account_state`'s, nologin(5) too. Asked in a process of its own, since modules may do whatever they like.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.limits import NAME_SERVICE_LIMIT
from minprov.machine.child_process import in_child_process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from minprov.machine.system import System

# pam.conf(5): an image's own files come first, then its distribution's.
DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d")
INCLUDES = ("include", "substack")
MAX_DEPTH = 32  # as PAM's own, PAM_SUBSTACK_MAX_LEVEL
# What these say of a new account is known: its age and nologin(5) are read back, and it is in the system's own files.
KNOWN = frozenset(
    {
        "pam_faillock",
        "pam_localuser",
        "pam_nologin",
        "pam_permit",
        "pam_sepermit",
        "pam_tally2",
        "pam_unix",
        "pam_usertype",
    }
)
HARMLESS = frozenset({"pam_cap", "pam_env", "pam_faildelay", "pam_group", "pam_shells"})
# What they say is no answer for good, or they do more than answer.
NOT_ASKED = frozenset({"pam_exec", "pam_time"})
# security/_pam_types.h
PAM_SUCCESS, PAM_SILENT = 0, 0x8000
TTY, REMOTE_HOST, REMOTE_USER = 3, 4, 8
PAM_REFUSALS = frozenset({6, 7, 11, 12, 13, 28})
"""Permission denied, authentication failure, too many tries, new password required, account expired, no such module."""
NOBODY = 65534
ACCESS = "/etc/security/access.conf"
NETWORK = r"(?<![\w.:/])[0-9]{1,3}(?:\.[0-9]{1,3}){0,3}(?![\w:])"
OF_A_HOST = ("9", "9", "9")
MAX_HOSTS = 32


class Line(NamedTuple):
    """A line of a service's stack."""

    module: str
    control: str
    file: str
    number: int

    @property
    def is_decisive(self) -> bool:
        """Whether what the module refuses is refused."""
        return self.control in ("required", "requisite") or "=die" in self.control or "=bad" in self.control


async def require_admission(system: System, service: str, username: str, *hosts: str) -> tuple[str, ...]:
    """Return a note where PAM cannot be asked although its stack has modules of which nothing is known.

    Raises:
        ProvisioningError: PAM_REFUSED, with the first of these modules, where it admits the user from none of the
            hosts; without hosts it is asked for a user who is there.

    """
    if not system.live or os.geteuid() != 0:
        return ()
    async with system.asking:
        key = ("pam", service, username)
        if key not in system.answers:
            system.answers[key] = await _judge(system, service, username, hosts)
    note: str | None = system.answers[key]
    return (note,) if note else ()


def find_judge_of_passwords(system: System, service: str) -> Line | None:
    """Return a module that may refuse a good password; it cannot be asked without counting a failure."""
    stack = read_stack(system, service, "auth")
    return next((line for line in _unknown(stack) if line.module not in HARMLESS and line.is_decisive), None)


async def _judge(system: System, service: str, username: str, hosts: tuple[str, ...]) -> str | None:
    stack = list(read_stack(system, service, "account"))
    unknown = _unknown(stack)
    if not unknown:
        return None
    first = unknown[0]
    if any(line.module in NOT_ASKED for line in stack):
        code, detail = None, "what it says is no answer for good"
    else:
        try:
            async with asyncio.timeout(NAME_SERVICE_LIMIT):
                code, detail = await in_child_process(lambda: ask(service, username, hosts))
        except (OSError, RuntimeError, TimeoutError) as error:
            code, detail = None, str(error).rpartition("\n")[2] or f"no answer in {NAME_SERVICE_LIMIT:g} s"
    if code in PAM_REFUSALS:
        raise ProvisioningError(
            Reason.PAM_REFUSED,
            username=username,
            service=service,
            detail=detail,
            setting=first.module,
            file=first.file,
            line=first.number,
        )
    if code == PAM_SUCCESS:
        return None
    return f"PAM is not asked whether {service} admits {username}: {first.module} in {first.file}: {detail}"


def _unknown(stack: Iterable[Line]) -> list[Line]:
    """Return the lines that the rest of the read-back does not stand for."""
    found = []
    skipped = False  # a last pam_deny is for those whom another module has not let skip it
    for line in stack:
        if line.module not in KNOWN and not (line.module == "pam_deny" and skipped):
            found.append(line)
        skipped = skipped or line.control == "sufficient" or "success=" in line.control
    return found


def read_stack(system: System, service: str, kind: str, depth: int = 0) -> Iterator[Line]:
    """Yield the lines of a kind in the stack of a service, those of included files in their place."""
    path = next((path for path in (f"{directory}/{service}" for directory in DIRECTORIES) if system.exists(path)), "")
    text = system.read_text(path) if path and depth < MAX_DEPTH else ""
    following = 1
    for line in text.replace("\\\n", "\0").splitlines():
        number, following = following, following + 1 + line.count("\0")
        words = line.replace("\0", " ").partition("#")[0].split()
        if len(words) == 2 and words[0] == "@include":
            yield from read_stack(system, words[1], kind, depth + 1)
            continue
        if len(words) < 3 or words[0].lstrip("-") != kind:
            continue
        control, rest = words[1], words[2:]
        if control.startswith("["):
            control, _, others = " ".join(words[1:]).partition("]")
            rest = others.split()
        if control in INCLUDES:
            yield from read_stack(system, rest[0], kind, depth + 1)
        elif rest:
            yield Line(os.path.basename(rest[0]).removesuffix(".so"), control, path, number)


def hosts_named(system: System) -> list[str]:
    """Return an address in each of the networks to which pam_access may admit more than to others: access.conf(5)."""
    lines = (line for line in system.read_text(ACCESS).splitlines() if not line.startswith("#"))
    networks = [found.split(".") for line in lines for found in re.findall(NETWORK, line.rpartition(":")[2])]
    padded = [[*octets, *OF_A_HOST][:4] for octets in networks]
    return [".".join((*first, OF_A_HOST[0] if last == "0" else last)) for *first, last in padded][:MAX_HOSTS]


def ask(service: str, username: str, hosts: tuple[str, ...]) -> tuple[int, str]:
    """Return PAM's answer and what it means, to be called in a process of its own; raises OSError without PAM."""
    import ctypes  # which few images need

    class Conversation(ctypes.Structure):
        """struct pam_conv, of somebody who answers nothing."""

        _fields_ = (("function", ctypes.c_void_p), ("data", ctypes.c_void_p))

    # Root's requests go to the kernel's audit as well, which the unit may not write to; PAM minds that of root alone.
    os.setresuid(NOBODY, 0, 0)
    library = ctypes.CDLL("libpam.so.0")
    library.pam_strerror.restype = ctypes.c_char_p
    given = [{TTY: "ssh", REMOTE_HOST: host} for host in hosts] or [{REMOTE_USER: username}]
    answers = []
    for items in given:
        handle, conversation = ctypes.c_void_p(), Conversation()
        code = library.pam_start(service.encode(), username.encode(), ctypes.byref(conversation), ctypes.byref(handle))
        for item, value in items.items():
            library.pam_set_item(handle, item, ctypes.c_char_p(value.encode()))
        if code == PAM_SUCCESS:
            code = library.pam_acct_mgmt(handle, PAM_SILENT)
        answers.append((code, library.pam_strerror(handle, code).decode(errors="replace")))
        if code == PAM_SUCCESS:
            break
    return next((answer for answer in answers if answer[0] == PAM_SUCCESS), answers[0])
