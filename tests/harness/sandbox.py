"""The limits of the unit that ships, put on a process: capabilities, no new privileges, system calls, addresses.

Read from the unit file itself, so that a scenario fails where the unit is too narrow. What a group of system calls has
in it systemd says, and libseccomp compiles it. Of the mounts and devices that the unit hides a scenario knows nothing:
guests show that.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from .address_filter import AddressFilter

UNIT = Path(__file__).parents[2] / "units/minprov.service"
# linux/prctl.h, linux/capability.h
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
CAPABILITIES = tuple(
    """
chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct
sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap
mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore
""".split()  # noqa: SIM905  # in the order of their numbers
)
# seccomp.h
SCMP_ACT_ALLOW, SCMP_ACT_ERRNO = 0x7FFF0000, 0x00050000
SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_MASKED_EQ = 4, 5, 7
AF_MAX = 46  # linux/socket.h
# linux/sched.h: what RestrictNamespaces= knows
NAMESPACES = {
    "cgroup": 0x02000000,
    "ipc": 0x08000000,
    "net": 0x40000000,
    "mnt": 0x00020000,
    "pid": 0x20000000,
    "user": 0x10000000,
    "uts": 0x04000000,
}
S_ISUID, S_ISGID = 0o4000, 0o2000
PROT_WRITE, PROT_EXEC = 2, 4


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class Sandbox:
    """The limits, compiled once; `enter` puts them on the calling process for good."""

    def __init__(self, unit: Path = UNIT) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        settings = read_settings(unit)
        kept = {name.removeprefix("CAP_").lower() for name in " ".join(settings["CapabilityBoundingSet"]).split()}
        assert kept <= set(CAPABILITIES), kept
        self._dropped = [number for number, name in enumerate(CAPABILITIES) if name not in kept]
        self._no_new_privileges = settings["NoNewPrivileges"] == ["yes"]
        # Where control groups can be had: a container may have none.
        self._addresses: AddressFilter | None = None
        with suppress(OSError):
            self._addresses = AddressFilter(" ".join(settings["IPAddressAllow"]).split())
            atexit.register(self._addresses.close)
        refused = getattr(errno, settings["SystemCallErrorNumber"][0])
        # In this order: the second one does not allow to load another.
        self._filters = [self._refuse(settings), self._allow(system_calls(settings["SystemCallFilter"]), refused)]

    @property
    def limits_addresses(self) -> bool:
        """Whether the unit's addresses can be had."""
        return self._addresses is not None

    def enter_addresses(self) -> None:
        """Have this process, and all that it starts, reach the unit's addresses alone; it must still see /sys."""
        if self._addresses:
            self._addresses.enter()

    def enter(self) -> None:
        """Put the other limits on this process, and all that it starts."""
        for number in self._dropped:
            self._check(self._libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), ignore=errno.EINVAL)
        if self._no_new_privileges:
            self._check(self._libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        for compiled in self._filters:
            if result := self._library.seccomp_load(ctypes.c_void_p(compiled)):
                raise OSError(-result, os.strerror(-result))

    def _allow(self, names: set[str], refused: int) -> int:
        compiled: int = self._library.seccomp_init(ctypes.c_uint32(SCMP_ACT_ERRNO | refused))
        for name in names:
            if (number := self._library.seccomp_syscall_resolve_name(name.encode())) >= 0:
                self._library.seccomp_rule_add_array(ctypes.c_void_p(compiled), SCMP_ACT_ALLOW, number, 0, None)
        return compiled

    def _refuse(self, settings: dict[str, list[str]]) -> int:
        """Return a filter of what depends on arguments: RestrictAddressFamilies= and the like, systemd.exec(5)."""
        compiled: int = self._library.seccomp_init(ctypes.c_uint32(SCMP_ACT_ALLOW))
        families = " ".join(settings["RestrictAddressFamilies"]).split()
        numbers = [int(getattr(socket, name)) for name in families]
        for number in {*range(AF_MAX)} - {*numbers}:
            self._rule(compiled, errno.EAFNOSUPPORT, "socket", (0, SCMP_CMP_EQ, number, 0))
        self._rule(compiled, errno.EAFNOSUPPORT, "socket", (0, SCMP_CMP_GE, AF_MAX, 0))
        kept = settings["RestrictNamespaces"][0].split()
        for name, flag in NAMESPACES.items():
            if name not in kept:
                self._rule(compiled, errno.EPERM, "unshare", (0, SCMP_CMP_MASKED_EQ, flag, flag))
                self._rule(compiled, errno.EPERM, "clone", (0, SCMP_CMP_MASKED_EQ, flag, flag))
        if settings["RestrictSUIDSGID"] == ["yes"]:
            for call, argument in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2)):
                for bit in (S_ISUID, S_ISGID):
                    self._rule(compiled, errno.EPERM, call, (argument, SCMP_CMP_MASKED_EQ, bit, bit))
        if settings["MemoryDenyWriteExecute"] == ["yes"]:
            both = PROT_WRITE | PROT_EXEC
            self._rule(compiled, errno.EPERM, "mmap", (2, SCMP_CMP_MASKED_EQ, both, both))
            self._rule(compiled, errno.EPERM, "mprotect", (2, SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC))
        return compiled

    def _rule(self, compiled: int, error: int, call: str, *comparisons: tuple[int, int, int, int]) -> None:
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        array = (_Comparison * len(comparisons))(*(_Comparison(*values) for values in comparisons))
        action = ctypes.c_uint32(SCMP_ACT_ERRNO | error)
        result = self._library.seccomp_rule_add_array(
            ctypes.c_void_p(compiled), action, number, len(comparisons), array
        )
        if result:
            raise OSError(-result, os.strerror(-result), call)

    def _check(self, result: int, *, ignore: int = 0) -> None:
        if result and (number := ctypes.get_errno()) != ignore:
            raise OSError(number, os.strerror(number))


def read_settings(unit: Path) -> dict[str, list[str]]:
    """Return the settings of a unit, each with its values in order."""
    settings: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            settings.setdefault(name, []).append(value)
    return settings


def system_calls(filters: list[str]) -> set[str]:
    """Return the system calls that SystemCallFilter= allows, line by line; those of @default always are."""
    groups = _read_groups()
    allowed = _expand("@default", groups)
    for line in filters:
        names = {call for word in line.removeprefix("~").split() for call in _expand(word, groups)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def _read_groups() -> dict[str, list[str]]:
    """Return what systemd says is in each group: system calls and other groups, on lines of their own."""
    command = ["systemd-analyze", "syscall-filter", "--no-pager"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    groups: dict[str, list[str]] = {}
    members: list[str] = []
    for line in printed.splitlines():
        if line.startswith("@"):
            members = groups.setdefault(line.strip(), [])
        elif line.startswith(" ") and not line.lstrip().startswith("#"):
            members.append(line.strip())
    return groups


def _expand(word: str, groups: dict[str, list[str]]) -> set[str]:
    if not word.startswith("@"):
        return {word}
    return {call for member in groups[word] for call in _expand(member, groups)}
