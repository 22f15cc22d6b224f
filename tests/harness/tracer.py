"""Follow a process and all that it starts by ptrace(2), and stop them at chosen system calls.

A seccomp(2) filter picks the system calls, so that all others run at full speed. At a stop the process has not begun
the call, or has just ended it; killed there, it never does, or has. One thread traces; it must be the one that forked.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

# linux/ptrace.h
TRACEME, CONT, SYSCALL, SETOPTIONS, GET_SYSCALL_INFO = 0, 7, 24, 0x4200, 0x420E
O_TRACESYSGOOD, O_TRACEFORK, O_TRACEVFORK, O_TRACECLONE, O_TRACEEXEC = 1, 2, 4, 8, 16
O_TRACESECCOMP, O_EXITKILL = 1 << 7, 1 << 20
EVENT_SECCOMP = 7
SYSCALL_INFO = struct.Struct("=BxxxIQQ7Q")  # of a seccomp stop: op, arch, instruction and stack pointers, nr, args
SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x40000000  # threads too, waitpid(2)

# linux/seccomp.h, linux/filter.h
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
RET_TRACE, RET_ALLOW = 0x7FF00000, 0x7FFF0000
NUMBER, ARGUMENTS = 0, 16  # where struct seccomp_data has them
LOAD_WORD, JUMP_IF_EQUAL, JUMP_IF_SET, RETURN = 0x20, 0x15, 0x45, 0x06
INSTRUCTION = struct.Struct("=HBBI")

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long


class Flags(NamedTuple):
    """The number of an argument, and bits of it."""

    argument: int
    bits: int


class Blow(NamedTuple):
    """A signal to a process, or with -1 to everything, which is what process 1 of a namespace started."""

    process: int
    signal: int


class Stop(NamedTuple):
    """A thread of what `first` started, or of itself, at a system call: before it, or after it when `done`."""

    first: int
    thread: int
    number: int
    arguments: tuple[int, ...]
    done: bool


def trace(
    start: Callable[[], object], calls: Mapping[int, Flags | None], at_stop: Callable[[Stop], Blow | None]
) -> int:
    """Run `start`, which is to end in an exec, in a child, and call `at_stop` before and after each of the calls.

    `calls` are system calls by their numbers; one with flags counts only when it has any of them. `at_stop` returns
    the blow to deal at that moment, if any. Returns when nothing is left, with the child's wait status.
    """
    program = _filter(calls)
    child = os.fork()
    if child == 0:
        try:
            _ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            _install(program)
            start()
        finally:
            os._exit(127)
    return _Tracer(child, at_stop).run()


class _Tracer:
    def __init__(self, first: int, at_stop: Callable[[Stop], Blow | None]) -> None:
        self._at_stop = at_stop
        self._first = first
        self._known = {first}
        self._within: dict[int, Stop] = {}  # threads in a system call that they were stopped before
        self._status = 0
        os.waitpid(first, WALL)
        options = O_TRACESYSGOOD | O_TRACEFORK | O_TRACEVFORK | O_TRACECLONE | O_TRACEEXEC | O_TRACESECCOMP | O_EXITKILL
        _ptrace(SETOPTIONS, first, options)
        _ptrace(CONT, first)

    def run(self) -> int:
        while True:
            try:
                thread, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                return self._status
            if not os.WIFSTOPPED(status):
                if thread == self._first:
                    self._status = status
            else:
                self._deal_with(thread, status)

    def _deal_with(self, thread: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        deliver, request = 0, CONT
        blow: Blow | None = None
        if event == EVENT_SECCOMP:
            if stop := _read_stop(self._first, thread):
                blow = self._at_stop(stop)
                self._within[thread] = stop
                request = SYSCALL
        elif number == SYSCALL_STOP:
            if stop := self._within.pop(thread, None):
                blow = self._at_stop(stop._replace(done=True))
        elif event == 0 and not (number == signal.SIGSTOP and thread not in self._known):
            deliver = number
        self._known.add(thread)
        if blow:
            os.kill(*blow)
        _ptrace(request, thread, deliver)


def _read_stop(first: int, thread: int) -> Stop | None:
    buffer = ctypes.create_string_buffer(SYSCALL_INFO.size)
    try:
        _ptrace(GET_SYSCALL_INFO, thread, ctypes.addressof(buffer), SYSCALL_INFO.size)
    except ProcessLookupError:
        return None
    _, _, _, _, number, *arguments = SYSCALL_INFO.unpack(buffer.raw)
    return Stop(first, thread, number, tuple(arguments), done=False)


def _ptrace(request: int, thread: int, data: int = 0, address: int = 0) -> None:
    if _LIBC.ptrace(request, thread, address, data) == -1:
        number = ctypes.get_errno()
        if number == errno.ESRCH and request in (CONT, SYSCALL):
            return  # it was killed meanwhile, and its end is yet to be waited for
        raise OSError(number, os.strerror(number))


def _filter(calls: Mapping[int, Flags | None]) -> bytes:
    """Return the program: for each call, go on behind its part if the number is another, else return in it."""
    program = b""
    for number, flags in calls.items():
        test = b""
        if flags:
            test += INSTRUCTION.pack(LOAD_WORD, 0, 0, ARGUMENTS + 8 * flags.argument)
            test += INSTRUCTION.pack(JUMP_IF_SET, 1, 0, flags.bits) + INSTRUCTION.pack(RETURN, 0, 0, RET_ALLOW)
        test += INSTRUCTION.pack(RETURN, 0, 0, RET_TRACE)
        program += INSTRUCTION.pack(JUMP_IF_EQUAL, 0, len(test) // INSTRUCTION.size, number) + test
    load, allow = INSTRUCTION.pack(LOAD_WORD, 0, 0, NUMBER), INSTRUCTION.pack(RETURN, 0, 0, RET_ALLOW)
    return load + program + allow


def _install(program: bytes) -> None:
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("=HxxxxxxQ", len(program) // INSTRUCTION.size, ctypes.addressof(buffer))
    if _LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
