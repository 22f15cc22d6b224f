"""QEMU's monitor, with the other end of its socket in the hands of the test."""

from __future__ import annotations

import asyncio
import socket

import pytest

from minprov.emulator.guest.machine import Monitor


def test_an_interruption_that_comes_together_with_a_reply_counts() -> None:
    async def main() -> None:
        here, there = socket.socketpair()
        with there:
            reader, writer = await asyncio.open_connection(sock=here)
            monitor = Monitor(reader, writer)
            command = asyncio.create_task(monitor.execute("cont"))
            follower = asyncio.create_task(asyncio.to_thread(there.recv, 1 << 10))
            await follower  # the command is waiting for its reply
            there.sendall(b'{"return": {}}\n')
            while not monitor._replies.qsize():  # noqa: ASYNC110  # the very round of the loop
                await asyncio.sleep(0)
            command.cancel()
            with pytest.raises(asyncio.CancelledError):
                await command
            there.shutdown(socket.SHUT_WR)
            await monitor.ended(within=10)
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())
