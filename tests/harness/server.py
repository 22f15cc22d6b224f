"""A process that has everything imported and the image made, and forks for each case it is asked for.

A case is asked for on a Unix socket, one connection each: a JSON line goes in, a JSON line comes out. Ends with its
standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from .case import parse_case
from .driver import run_case
from .linux import CLONE_NEWNS, die_with_parent, unshare
from .machine import Image, Machine, Unavailable, leave_this_machine

LIMIT = 240
"""Seconds for a case with all its runs; several times what the longest one takes."""


def main() -> None:
    """Serve until standard input ends: arguments are a directory of our own, the socket's path and the program."""
    directory, path, *program = sys.argv[1:]
    os.umask(0o022)
    unshare(CLONE_NEWNS)
    image = Image(directory, program, privileged=os.environ.get("MINPROV_PRIVILEGED") == "1")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    print("listening", flush=True)
    children: set[int] = set()
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [], 1.0)
        children = {child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)}
        if sys.stdin in ready:
            break
        if listener not in ready:
            continue
        connection, _ = listener.accept()
        if child := os.fork():
            children.add(child)
            connection.close()
        else:
            _serve(connection, image)
    for child in children:
        os.kill(child, signal.SIGKILL)


def _serve(connection: socket.socket, image: Image) -> NoReturn:
    """Become a machine, in a child that is its process 1, and answer."""
    die_with_parent()
    try:
        leave_this_machine()
        if child := os.fork():
            signal.alarm(LIMIT)  # ends this process, and with it the machine, whatever that one is waiting for
            os.waitpid(child, 0)
        else:
            die_with_parent()
            with connection.makefile("rw", encoding="utf-8") as stream:
                stream.write(json.dumps(_answer(json.loads(stream.readline()), image)) + "\n")
    finally:
        os._exit(0)


def _answer(request: dict[str, Any], image: Image) -> dict[str, Any]:
    try:
        case = parse_case(request["case"], file=Path(request["file"]))
        return asyncio.run(run_case(case, Machine(image, tree=case.tree)))
    except Unavailable as reason:
        return {"unavailable": str(reason)}
    except BaseException:  # whatever it was, the test is told
        return {"broken": traceback.format_exc()}


if __name__ == "__main__":
    main()
