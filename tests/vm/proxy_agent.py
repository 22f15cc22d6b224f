"""Stands in for Azure's guest proxy agent: what leaves for the platform goes by way of it, and it signs that.

Like the agent (GuestProxyAgent: linux-ebpf/ebpf_cgroup.c, proxy_agent/src/proxy/proxy_server.rs, provision.rs), it has
a BPF program of the root control group lead every connection to the platform to 127.0.0.1:3080, and `--status` asks
there whether it is ready. Unlike it, it signs without a key, and is ready when it has refused a request with each
status that an agent has for one which comes too early.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from typing import ClassVar

from tests.harness import bpf

LISTENER = ("127.0.0.1", 3080)
WIRESERVER, IMDS = "168.63.129.16", "169.254.169.254"
HTTP, HOST_PLUGIN = 80, 32526
# It has no key yet, does not know the connection, or does not reach the host.
TOO_EARLY = (403, 421, 502, 503)
SIGNATURE = {"x-ms-azure-host-authorization": "Azure-HMAC-SHA256 key signature"}
# struct bpf_sock_addr
USER_IP4, USER_PORT = 4, 24


class Proxy(BaseHTTPRequestHandler):
    """One connection to the platform."""

    refusals: ClassVar = [*TOO_EARLY]

    def do_GET(self) -> None:
        """Answer a question about the agent itself, refuse, or forward."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers["Host"] == "{}:{}".format(*LISTENER):
            self._answer(503 if self.refusals else 200)
        elif self.refusals:
            self._answer(self.refusals.pop(0))
        else:
            self._forward(body)

    def do_POST(self) -> None:
        """Do the same."""
        self.do_GET()

    def _forward(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(self.headers["Host"], timeout=10)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()) | SIGNATURE)
            answer = connection.getresponse()
            self._answer(answer.status, answer.read(), answer.headers.get_content_type())
        except OSError:
            self._answer(502)
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes = b"", content_type: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def redirect(process: int) -> bytes:
    """Return a program for connect(2) that leads all processes but one to the listener."""
    head = [
        bpf.instruction(bpf.MOVE_REGISTER, 6, source=1),
        bpf.instruction(bpf.CALL, value=bpf.GET_CURRENT_PID_TGID),
        bpf.instruction(bpf.SHIFT_RIGHT, 0, value=32),
        bpf.instruction(bpf.JUMP_EQUAL, 0, jump=10, value=process),
        bpf.instruction(bpf.LOAD_WORD, 2, source=6, jump=USER_IP4),
        bpf.instruction(bpf.JUMP_WORD_EQUAL, 2, jump=1, value=_address(WIRESERVER)),
        bpf.instruction(bpf.JUMP_WORD_NOT_EQUAL, 2, jump=7, value=_address(IMDS)),
        bpf.instruction(bpf.LOAD_WORD, 2, source=6, jump=USER_PORT),
        bpf.instruction(bpf.JUMP_WORD_EQUAL, 2, jump=1, value=socket.htons(HTTP)),
        bpf.instruction(bpf.JUMP_WORD_NOT_EQUAL, 2, jump=4, value=socket.htons(HOST_PLUGIN)),
    ]
    rewrite = [
        bpf.instruction(bpf.MOVE, 2, value=_address(LISTENER[0])),
        bpf.instruction(bpf.STORE_WORD, 6, source=2, jump=USER_IP4),
        bpf.instruction(bpf.MOVE, 2, value=socket.htons(LISTENER[1])),
        bpf.instruction(bpf.STORE_WORD, 6, source=2, jump=USER_PORT),
    ]
    return b"".join([*head, *rewrite, bpf.instruction(bpf.MOVE, 0, value=1), bpf.instruction(bpf.EXIT)])


def _address(address: str) -> int:
    return int.from_bytes(IPv4Address(address).packed, sys.byteorder, signed=True)


def is_ready() -> bool:
    """Ask the agent that runs."""
    connection = http.client.HTTPConnection(*LISTENER, timeout=10)
    try:
        connection.request("GET", "/provision")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def main() -> int:
    """Run as the agent, or ask it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--status", action="store_true")
    parser.add_argument("--wait", type=float, default=0.0)
    options = parser.parse_args()
    if options.status:
        end = time.monotonic() + options.wait
        while not (ready := is_ready()) and time.monotonic() < end:
            time.sleep(0.1)
        return 0 if ready else 1
    with ThreadingHTTPServer(LISTENER, Proxy) as server:
        bpf.attach(
            bpf.hierarchy(),
            bpf.BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            bpf.BPF_CGROUP_INET4_CONNECT,
            redirect(os.getpid()),
            flags=bpf.BPF_F_ALLOW_MULTI,
        )
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
