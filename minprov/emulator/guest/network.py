"""A network that exists only for a guest: a name space with the platform's addresses, a tap, DHCP and a name server.

Nothing in it reaches anything else, and the kernel removes all of it when the last process in it ends. It lives in a
user name space, so it needs no privilege, and the guests' contacts with 168.63.129.16 and 169.254.169.254 stay inside.
(QEMU's own user network would need no tap, but its DHCP server has neither Azure's routes nor its endpoint option.)
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason

from .tools import find_tool
from .transcript import Transcript, UnheardError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

TAP = "vm0"
# The first addresses of a subnet are Azure's own: .1 is its gateway, .4 the first guest's.
HOST = "10.0.0.1"
GUEST = "10.0.0.4"
WIRESERVER = "168.63.129.16"
IMDS = "169.254.169.254"
DOMAIN = "internal.cloudapp.net"

_SET_UP = f"""
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
ip tuntap add {TAP} mode tap
ip address add {HOST}/24 dev {TAP}
ip address add {WIRESERVER}/32 dev {TAP}
ip address add {IMDS}/32 dev {TAP}
ip link set {TAP} up
echo up
exec cat
"""

_DHCP = (
    *("--keep-in-foreground", "--no-daemon", "--conf-file=/dev/null", "--user=root", "--log-dhcp"),
    # Like Azure's, its name server knows the names that clients sent in DHCP requests, and nothing else.
    *("--no-resolv", "--no-hosts", f"--domain={DOMAIN}", "--local=/#/", f"--dhcp-option-force=6,{WIRESERVER}"),
    *(f"--interface={TAP}", "--bind-interfaces", "--no-ping", "--dhcp-authoritative", "--leasefile-ro"),
    f"--dhcp-range={GUEST},{GUEST},255.255.255.0,1h",
    # Azure's routes (classless static routes, which replace option 3) and its endpoint option, sent unasked.
    f"--dhcp-option-force=121,0.0.0.0/0,{HOST},{WIRESERVER}/32,{HOST},{IMDS}/32,{HOST}",
    "--dhcp-option-force=245,a8:3f:81:10",
)


class Network:
    """A running network: `spawn` starts a process in it."""

    def __init__(self, holder: Process, stack: AsyncExitStack, dhcp: Transcript) -> None:
        self._holder = holder
        self._stack = stack
        self.dhcp = dhcp

    @property
    def dhcp_names(self) -> list[str]:
        """Return the host names that clients sent in DHCP requests, in order."""
        return re.findall(r"client provides name: (\S+)", self.dhcp.text)

    def argv(self, *argv: str | Path) -> list[str]:
        """Return the command line that runs `argv` inside the network, until this process ends at the latest."""
        inside = ("nsenter", "--target", str(self._holder.pid), "--user", "--net", "--preserve-credentials", "--")
        return [*inside, "setpriv", "--pdeathsig", "KILL", *map(str, argv)]

    async def spawn(self, transcript: Transcript, *argv: str | Path) -> Process:
        """Start a process that lives as long as the network, and follow what it writes, in English."""
        environment = os.environ | {"LC_ALL": "C"}
        process = await asyncio.create_subprocess_exec(
            *self.argv(*argv), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=environment
        )
        assert process.stdout  # noqa: S101  # PIPE
        follower = asyncio.create_task(transcript.follow(process.stdout))
        self._stack.push_async_callback(asyncio.wait_for, follower, 10)
        self._stack.push_async_callback(_end, process)
        return process

    async def run(
        self, *argv: str | Path, within: float, environment: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Run a command to its end, with additions to the environment; return its exit status and what it wrote.

        Raises: TimeoutError; the command is ended.
        """
        process = await asyncio.create_subprocess_exec(
            *self.argv(*argv), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=os.environ | (environment or {})
        )
        try:
            async with asyncio.timeout(within):
                output, _ = await process.communicate()
        finally:
            await _end(process)
        return await process.wait(), output.decode(errors="replace")


@asynccontextmanager
async def platform_network(on_dhcp_line: Callable[[float, str], None] | None = None) -> AsyncIterator[Network]:
    """Make the network, with DHCP running, for as long as the context lasts.

    Raises: ProvisioningError(NOT_PERMITTED) where this user may not make one, ProvisioningError(TOOL_NOT_FOUND),
    ProvisioningError(TOOL_FAILED).
    """
    dnsmasq = find_tool("dnsmasq")
    find_tool("ip")
    async with AsyncExitStack() as stack:
        holder = await asyncio.create_subprocess_exec(
            *(find_tool("unshare"), "--map-root-user", "--net", "--", "sh", "-euc", _SET_UP),
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
        )
        stack.push_async_callback(_end, holder)
        assert holder.stdout  # noqa: S101  # PIPE
        async with asyncio.timeout(10):
            said = await holder.stdout.readline()
        if said != b"up\n":
            detail = said.decode(errors="replace").strip()
            raise ProvisioningError(
                Reason.NOT_PERMITTED,
                action="make a network name space with a tap",
                detail=detail,
                hint="it takes user name spaces and an open /dev/net/tun; or try as root",
            )
        network = Network(holder, stack, Transcript("dnsmasq", on_line=on_dhcp_line))
        await network.spawn(network.dhcp, dnsmasq, *_DHCP)
        try:
            await network.dhcp.expect("sockets bound exclusively", within=10)
        except UnheardError as error:
            raise ProvisioningError(Reason.TOOL_FAILED, tool="dnsmasq", detail=network.dhcp.text.strip()) from error
        yield network


async def _end(process: Process) -> None:
    if process.returncode is None:
        _send(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            _send(process, signal.SIGKILL)
            await process.wait()


def _send(process: Process, number: signal.Signals) -> None:
    """Send a signal as newer versions of asyncio do: older ones may take the exit status from their own watcher.

    https://github.com/python/cpython/issues/87744
    """
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)
