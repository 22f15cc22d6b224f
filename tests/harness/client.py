"""The tests' side of the harness: a server of machines, and cases that run ahead of the tests that wait for them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

REPOSITORY = Path(__file__).parents[2]


class Harness:
    """A server and so many machines at a time, all with the same program to run; a context manager."""

    def __init__(self, machines: int, program: list[str]) -> None:
        self._program = program
        self.privileged = os.geteuid() == 0
        self._directory = tempfile.TemporaryDirectory(prefix="minprov-machines-")
        self._socket = f"{self._directory.name}/socket"
        self._pool = ThreadPoolExecutor(machines)

    def __enter__(self) -> Self:
        space = f"{self._directory.name}/space"
        os.mkdir(space)
        command = [sys.executable, "-m", f"{__package__}.server", space, self._socket, *self._program]
        if not self.privileged:
            # As in machine.leave_this_machine, but for the user namespace, which has to come first.
            command = ["unshare", "--map-root-user", *command]
        self._server = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | {"MINPROV_PRIVILEGED": str(int(self.privileged))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout
        assert self._server.stderr
        self.unavailable = None
        if self._server.stdout.readline() != "listening\n":
            self.unavailable = (self._server.stderr.read().strip().splitlines() or ["no machines"])[-1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._server.communicate()
        self._directory.cleanup()

    def start(self, case: dict[str, object], file: Path) -> Future[dict[str, Any]]:
        """Have a case run as soon as there is a machine for it."""
        return self._pool.submit(self._run, case, file)

    def _run(self, case: dict[str, object], file: Path) -> dict[str, Any]:
        if self.unavailable:
            return {"unavailable": self.unavailable}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(self._socket)
            with connection.makefile("rw", encoding="utf-8") as stream:
                stream.write(json.dumps({"case": case, "file": str(file)}) + "\n")
                stream.flush()
                answer = stream.readline()
        result: dict[str, Any] = json.loads(answer) if answer else {"broken": "the machine ended without a word"}
        return result
