"""System calls that Python does not have, by ctypes: mount(2), umount2(2), unshare(2), prctl(2); and netdevice(7)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1

SIOCSIFADDR, SIOCSIFNETMASK, SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8916, 0x891C, 0x8913, 0x8914
IFF_UP = 1

_LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "none", *, flags: int = 0, options: str = "") -> None:
    """Call mount(2)."""
    arguments = [text.encode() for text in (source, target, kind)]
    _check(_LIBC.mount(*arguments, ctypes.c_ulong(flags), options.encode()), target)


def bind(source: str, target: str) -> None:
    """Show a directory, with all that is mounted below it, or a file at another place as well."""
    mount(source, target, flags=MS_BIND | MS_REC)


def detach(target: str) -> None:
    """Take a mount away, now or when its last user is done."""
    _check(_LIBC.umount2(target.encode(), MNT_DETACH), target)


def unshare(flags: int) -> None:
    """Leave the namespaces that are shared with the parent."""
    _check(_LIBC.unshare(flags), "unshare")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _check(_LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def add_address(name: str, address: str) -> None:
    """Give an interface, which may be an alias such as ``lo:1``, one address and bring it up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.255")):
            fcntl.ioctl(control, request, struct.pack("16sHH4s8x", name.encode(), socket.AF_INET, 0, _packed(value)))
    switch_interface(name, up=True)


def switch_interface(name: str, *, up: bool) -> None:
    """Bring an interface up, or down; an alias that is down is gone with its address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        found = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh14x", name.encode(), 0))
        (flags,) = struct.unpack_from("h", found, 16)
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), flags))


def _packed(address: str) -> bytes:
    return socket.inet_aton(address)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
