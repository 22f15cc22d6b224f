"""A network that exists only for the test: a name space with the platform's addresses, a tap, and a DHCP server.

Nothing in it reaches anything else, and the kernel removes all of it when the last process in it ends. It lives in a
user name space, so it needs no privilege, and the guests' contacts with 168.63.129.16 and 169.254.169.254 stay inside.
"""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.vm.transcript import Transcript

TAP = "vm0"
HOST = "10.20.0.1"
GUEST = "10.20.0.4"
MAC = "00:0d:3a:00:00:04"
WIRESERVER = "168.63.129.16"
IMDS = "169.254.169.254"
DOMAIN = "internal.cloudapp.net"

_SET_UP = f"""
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
    *("dnsmasq", "--keep-in-foreground", "--no-daemon", "--conf-file=/dev/null", "--user=root", "--log-dhcp"),
    # Like Azure's, its name server knows the names that clients sent in DHCP requests, and nothing else.
    *("--no-resolv", "--no-hosts", f"--domain={DOMAIN}", "--local=/#/", f"--dhcp-option-force=6,{WIRESERVER}"),
    *(f"--interface={TAP}", "--bind-interfaces", "--no-ping", "--dhcp-authoritative", "--leasefile-ro"),
    f"--dhcp-range={GUEST},{GUEST},255.255.255.0,1h",
    # Azure's routes (classless static routes, which replace option 3) and its endpoint option, sent unasked.
    f"--dhcp-option-force=121,0.0.0.0/0,{HOST},{WIRESERVER}/32,{HOST},{IMDS}/32,{HOST}",
    "--dhcp-option-force=245,a8:3f:81:10",
)


class Network:
    """A running test network: `spawn` starts a process in it."""

    def __init__(self, holder: Process, stack: AsyncExitStack) -> None:
        self._holder = holder
        self._stack = stack
        self.dhcp = Transcript("dnsmasq")

    @property
    def dhcp_names(self) -> list[str]:
        """Return the host names that clients sent in DHCP requests, in order."""
        return re.findall(r"client provides name: (\S+)", self.dhcp.text)

    def argv(self, *argv: str | Path) -> list[str]:
        """Return the command line that runs `argv` inside the network."""
        inside = ("nsenter", "--target", str(self._holder.pid), "--user", "--net", "--preserve-credentials", "--")
        return [*inside, *map(str, argv)]

    async def spawn(self, transcript: Transcript, *argv: str | Path) -> Process:
        """Start a process that lives as long as the network, and follow what it writes."""
        process = await asyncio.create_subprocess_exec(*self.argv(*argv), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
        assert process.stdout
        follower = asyncio.create_task(transcript.follow(process.stdout))
        self._stack.push_async_callback(asyncio.wait_for, follower, 10)
        self._stack.push_async_callback(_end, process)
        return process

    async def run(self, *argv: str | Path, within: float) -> tuple[int, str]:
        """Run a command to its end; return its exit status and what it wrote."""
        process = await asyncio.create_subprocess_exec(*self.argv(*argv), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
        try:
            async with asyncio.timeout(within):
                output, _ = await process.communicate()
        finally:
            await _end(process)
        assert process.returncode is not None
        return process.returncode, output.decode(errors="replace")


@asynccontextmanager
async def test_network() -> AsyncIterator[Network]:
    """Make the network, with DHCP running, for as long as the context lasts."""
    async with AsyncExitStack() as stack:
        holder = await asyncio.create_subprocess_exec(
            *("unshare", "--map-root-user", "--net", "--", "sh", "-euc", _SET_UP), stdin=PIPE, stdout=PIPE
        )
        stack.push_async_callback(_end, holder)
        assert holder.stdout
        if await asyncio.wait_for(holder.stdout.readline(), 10) != b"up\n":
            raise RuntimeError("cannot make a network name space with a tap: see the messages above")
        network = Network(holder, stack)
        await network.spawn(network.dhcp, *_DHCP)
        await network.dhcp.expect("sockets bound exclusively", within=10)
        yield network


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
