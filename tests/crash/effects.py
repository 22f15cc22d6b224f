"""Which system calls change the machine or are heard outside of it, and what each is about to change."""

from __future__ import annotations

import os
import platform
import re
import socket
import stat
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tests.harness.tracer import Flags, Stop


class Call(NamedTuple):
    """A system call: which of its arguments say what it is about."""

    name: str
    kind: str  # path, file (a descriptor), write, connect, ioctl or other
    place: int = 0  # of the path or descriptor
    directory: int | None = None  # of the descriptor that a path is relative to
    flags: Flags | None = None  # without which it changes nothing


# asm/unistd_64.h
CALLS = {
    1: Call("write", "write"),
    2: Call("open", "path", flags=Flags(1, os.O_CREAT | os.O_TRUNC)),
    16: Call("ioctl", "ioctl"),
    18: Call("pwrite64", "write"),
    20: Call("writev", "write"),
    40: Call("sendfile", "write"),
    42: Call("connect", "connect"),
    44: Call("sendto", "write"),
    46: Call("sendmsg", "write"),
    74: Call("fsync", "file"),
    75: Call("fdatasync", "file"),
    76: Call("truncate", "path"),
    77: Call("ftruncate", "file"),
    82: Call("rename", "path", 1),
    83: Call("mkdir", "path"),
    84: Call("rmdir", "path"),
    85: Call("creat", "path"),
    86: Call("link", "path", 1),
    87: Call("unlink", "path"),
    88: Call("symlink", "path", 1),
    90: Call("chmod", "path"),
    91: Call("fchmod", "file"),
    92: Call("chown", "path"),
    93: Call("fchown", "file"),
    94: Call("lchown", "path"),
    132: Call("utime", "path"),
    133: Call("mknod", "path"),
    162: Call("sync", "other"),
    165: Call("mount", "path", 1),
    166: Call("umount2", "path"),
    167: Call("swapon", "path"),
    168: Call("swapoff", "path"),
    170: Call("sethostname", "other"),
    188: Call("setxattr", "path"),
    189: Call("lsetxattr", "path"),
    190: Call("fsetxattr", "file"),
    197: Call("removexattr", "path"),
    198: Call("lremovexattr", "path"),
    199: Call("fremovexattr", "file"),
    235: Call("utimes", "path"),
    257: Call("openat", "path", 1, 0, flags=Flags(2, os.O_CREAT | os.O_TRUNC)),
    258: Call("mkdirat", "path", 1, 0),
    259: Call("mknodat", "path", 1, 0),
    260: Call("fchownat", "path", 1, 0),
    261: Call("futimesat", "path", 1, 0),
    263: Call("unlinkat", "path", 1, 0),
    264: Call("renameat", "path", 3, 2),
    265: Call("linkat", "path", 3, 2),
    266: Call("symlinkat", "path", 2, 1),
    268: Call("fchmodat", "path", 1, 0),
    275: Call("splice", "write", 2),
    280: Call("utimensat", "path", 1, 0),
    285: Call("fallocate", "file"),
    296: Call("pwritev", "write"),
    306: Call("syncfs", "other"),
    307: Call("sendmmsg", "write"),
    316: Call("renameat2", "path", 3, 2),
    326: Call("copy_file_range", "write", 2),
    328: Call("pwritev2", "write"),
    429: Call("move_mount", "path", 3, 2),
    437: Call("openat2", "path", 1, 0),
    452: Call("fchmodat2", "path", 1, 0),
}
SUPPORTED = platform.machine() == "x86_64"
MAKES = ("mkdir", "mkdirat")  # nothing where there is something
REMOVES = ("unlink", "unlinkat", "rmdir")  # nothing where there is nothing
NAMES = re.compile("creat|link|mk|open|rename|rmdir|symlink|unlink")  # what changes a directory's entries
CDROM_EJECT = 0x5309
AT_FDCWD = -100
# What differs between runs: process numbers in the names of lock files, and names by mkstemp(3).
OF_THE_MOMENT = ((re.compile(r"\.\d+$"), ".PID"), (re.compile(r"(/ssh_host_.*)\.\w{10}$"), r"\1.TEMP"))
ELSEWHERE = ("/proc/", "/sys/", "/dev/", "/tmp/", "/memfd:")


class Effect(NamedTuple):
    """What a process is about to do: `program` is its name, `target` a path in the machine's tree or an address."""

    program: str
    call: str
    target: str

    def __str__(self) -> str:
        return f"{self.program}: {self.call} {self.target}"


class Effects:
    """Tells what the calls do to the machine at `root`; one that has nothing to make or to remove does nothing.

    Of block devices only those count that `devices` has a name for, by their paths.
    """

    def __init__(self, root: str, devices: Mapping[str, str] | None = None) -> None:
        self._root = root
        self._devices = devices or {}
        self._under_way: dict[int, Effect | None] = {}  # by thread: after a call, the same that it was before

    def find(self, stop: Stop) -> Effect | None:
        """Return what a call is about to do, or has done, or None if nothing."""
        if not stop.done:
            self._under_way[stop.thread] = _find_effect(stop, self._root, self._devices)
        return self._under_way[stop.thread]


def _find_effect(stop: Stop, root: str, devices: Mapping[str, str]) -> Effect | None:
    call = CALLS[stop.number]
    thread = stop.thread
    target: str | None
    if call.kind == "other":
        target = ""
    elif call.kind == "ioctl":
        target = "eject" if stop.arguments[1] & 0xFFFFFFFF == CDROM_EJECT else None
    elif call.kind == "connect":
        target = _address(root, thread, stop.arguments[1])
    elif call.kind in ("file", "write"):
        target = _described(thread, stop.arguments[call.place], root, devices, sockets=call.kind == "write")
    else:
        target = _path(stop, call, root)
    if target is None or call.name in (REMOVES, MAKES)[os.path.lexists(root + target)]:
        return None
    for pattern, replacement in OF_THE_MOMENT:
        target = pattern.sub(replacement, target)
    return Effect(_program(thread, stop.first, root), call.name, target)


def find_unsynced(effects: Iterable[Effect]) -> set[str]:
    """Return the files and directories that fsync(2) was not called for since they were changed last.

    A name is part of its directory, so whoever makes, renames or removes one changes that.
    """
    unsynced = set()
    for _, call, path in effects:
        if call in ("fsync", "fdatasync"):
            unsynced.discard(path)
        elif path.startswith("/"):
            if NAMES.match(call):
                unsynced.add(os.path.dirname(path))
            if call in REMOVES:
                unsynced.discard(path)
            elif not call.startswith(("rename", "link")):
                unsynced.add(path)
    return unsynced


def _program(thread: int, first: int, root: str) -> str:
    with open(f"{root}/proc/{thread}/status", encoding="utf-8", errors="replace") as stream:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in stream if ":\t" in line)
    process = int(fields["Tgid"])
    if process == first:
        return "minprov"
    with open(f"{root}/proc/{process}/comm", encoding="utf-8", errors="replace") as stream:
        name = stream.read().strip()
    return "minprov, child" if name.startswith("python") else name


def _described(thread: int, descriptor: int, root: str, devices: Mapping[str, str], *, sockets: bool) -> str | None:
    """Return what a descriptor is of: a file of the tree, one of the devices or, among `sockets`, a TCP one."""
    link = f"{root}/proc/{thread}/fd/{_signed(descriptor)}"
    try:
        mode, path = os.stat(link).st_mode, os.readlink(link)
    except OSError:
        return None
    if stat.S_ISSOCK(mode):
        return "the platform" if sockets and path[len("socket:[") : -1] in _tcp_sockets(root) else None
    if stat.S_ISBLK(mode):
        return devices.get(path)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return None
    return _in_tree(path, root)


def _tcp_sockets(root: str) -> set[str]:
    with open(f"{root}/proc/net/tcp", encoding="ascii") as stream:
        return {line.split()[9] for line in stream}


def _path(stop: Stop, call: Call, root: str) -> str | None:
    path = _string(root, stop.thread, stop.arguments[call.place])
    if path.startswith("/"):
        return _in_tree(root + path, root)
    directory = AT_FDCWD if call.directory is None else _signed(stop.arguments[call.directory])
    base = f"{root}/proc/{stop.thread}/" + ("cwd" if directory == AT_FDCWD else f"fd/{directory}")
    return _in_tree(os.path.join(os.readlink(base), path), root)


def _in_tree(path: str, root: str) -> str | None:
    inside = os.path.normpath(path).removeprefix(root)
    return None if inside.startswith(ELSEWHERE) else inside


def _address(root: str, thread: int, pointer: int) -> str | None:
    with open(f"{root}/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(pointer)
        family, port, address = struct.unpack("=HH4s", memory.read(8))
    return f"{socket.inet_ntoa(address)}:{socket.ntohs(port)}" if family == socket.AF_INET else None


def _string(root: str, thread: int, pointer: int) -> str:
    with open(f"{root}/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(pointer)
        text = b""
        while b"\0" not in text:
            text += memory.read(min(256, 4096 - (pointer + len(text)) % 4096))  # the next page may not be there
        return os.fsdecode(text.split(b"\0")[0])


def _signed(value: int) -> int:
    return value - (1 << 32) if value & 1 << 31 else value & 0xFFFFFFFF
