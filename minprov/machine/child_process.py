"""Run a call that may never return in a process of its own, which can be left behind.

For devices. A thread in an uninterruptible wait, as for the answer of a stuck drive, outlives even SIGKILL and with it
the process that it belongs to; a child in that state is the kernel's business alone. The child is a fork, which takes a
millisecond, with nothing but a pipe to its parent: what comes back is plain values, whatever a hostile disc does to it.
"""

from __future__ import annotations

import marshal
import os
import signal
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

from minprov.errors import ProvisioningError, Reason
from minprov.limits import CHILD_PROCESS_LIMIT

T = TypeVar("T")

MAX_DESCRIPTOR = 1 << 10  # a C library without close_range, as musl, asks the kernel for each


class ChildProcess(Generic[T]):
    """A call under way in a process of its own, from the moment this is created; it can be before there is a loop."""

    def __init__(self, function: Callable[[], T]) -> None:
        """Start the call, which returns values that `marshal` knows."""
        self.answer, writer = os.pipe()  # a descriptor, ready to be read when there is one
        self._child = os.fork()
        if self._child == 0:
            _serve(function, writer)
        os.close(writer)

    async def end(self) -> T:
        """Return what the call returns; cancelling leaves the child behind, killed.

        Raises:
            ProvisioningError, OSError: as the call does.
            ChildProcessError: its process ended without a word.
            RuntimeError: the call raised anything else; the message is the traceback.

        """
        try:
            answer = await _read_to_end(self.answer)
        finally:
            self.abandon()
        if not answer:
            raise ChildProcessError("its process ended without a word")
        kind, *values = marshal.loads(answer)  # noqa: S302  # from our own child
        if kind == "error":
            raise ProvisioningError(Reason[values[0]], **values[1])
        if kind == "system":
            raise OSError(*values)
        if kind == "defect":
            raise RuntimeError(values[0])
        returned: T = values[0]
        return returned

    def abandon(self) -> None:
        """Leave the child behind, killed; once it has ended there is nothing to do."""
        if self._child:
            os.close(self.answer)
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, os.WNOHANG)
            self._child = 0


async def in_child_process(function: Callable[[], T]) -> T:
    """Return what the call returns, as `ChildProcess.end` does."""
    return await ChildProcess(function).end()


def _serve(function: Callable[[], object], writer: int) -> NoReturn:
    """Be the child: call, answer, exit."""
    try:
        signal.set_wakeup_fd(-1)  # the event loop's, which would take a signal to the child for its own
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.setitimer(signal.ITIMER_REAL, CHILD_PROCESS_LIMIT)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)  # whoever reads the parent's output to its end shall not wait for the child
        os.closerange(3, writer)
        os.closerange(writer + 1, MAX_DESCRIPTOR)
        answer: Any
        try:
            answer = "value", function()
        except ProvisioningError as error:
            answer = "error", error.reason.name, error.data
        except OSError as error:
            answer = "system", error.errno, error.strerror
        except Exception:
            import traceback  # a good run has no use for it

            answer = "defect", traceback.format_exc()
        with open(writer, "wb") as stream:
            marshal.dump(answer, stream)
    finally:
        os._exit(0)


async def _read_to_end(descriptor: int) -> bytes:
    import asyncio  # a child is started before this is loaded

    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    contents = bytearray()

    def read() -> None:
        piece = os.read(descriptor, 1 << 16)
        contents.extend(piece)
        if not piece and not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, read)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
    return bytes(contents)
