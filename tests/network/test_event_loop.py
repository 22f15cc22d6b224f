"""The event loop: which one, and that it takes an address for one."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from minprov.config import Loop
from minprov.network.event_loop import new_event_loop


@pytest.mark.parametrize(
    ("choice", "module"), [(Loop.AUTO, "asyncio"), (Loop.UVLOOP, "minprov"), (Loop.ASYNCIO, "asyncio")]
)
def test_the_loop_is_the_one_that_was_chosen(choice: Loop, module: str) -> None:
    with closing(new_event_loop(choice)) as loop:
        assert type(loop).__module__.partition(".")[0] == module


@pytest.mark.parametrize("choice", Loop)
def test_to_connect_to_an_address_takes_no_threads(choice: Loop) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket() as client,
        closing(new_event_loop(choice)) as loop,
    ):
        client.setblocking(False)
        before = len(os.listdir("/proc/self/task"))
        loop.run_until_complete(loop.sock_connect(client, server.getsockname()))
        assert client.getpeername() == server.getsockname()
        assert len(os.listdir("/proc/self/task")) == before
