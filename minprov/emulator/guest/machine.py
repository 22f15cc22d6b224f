"""One virtual machine under QEMU with Azure's identity: its serial console, its monitor, its optical drive.

The processor starts only when every channel is being listened to, so nothing that the guest says is lost. KVM is used
where there is one; software emulation, about fifteen times slower on processor work, is enough.
"""

from __future__ import annotations

import asyncio
import json
import textwrap
import time
import uuid
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from minprov.errors import ProvisioningError, Reason

from .acceleration import is_accelerated
from .architecture import X64
from .network import TAP
from .tools import find_tool
from .transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from .architecture import Architecture
    from .network import Network

# "MSFT AZURE VM": how every Azure machine names itself (cloud-init, sources/azure/identity.py).
CHASSIS_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"

# Stopped, until every channel is listened to.
_BARE = ("-smp", "1", "-nodefaults", "-display", "none", "-S")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Machine:
    """A running machine. `started_at` is when its processor started, by the monotonic clock."""

    def __init__(self, monitor: Monitor, console: Transcript) -> None:
        self.monitor = monitor
        self.console = console
        self.started_at = time.monotonic()

    async def start(self) -> None:
        """Let the processor run."""
        self.started_at = time.monotonic()
        await self.monitor.execute("cont")

    async def set_link(self, *, up: bool) -> None:
        """Plug the network cable in or out."""
        await self.monitor.execute("set_link", name="nic0", up=up)

    async def tray_is_open(self) -> bool:
        """Tell whether the optical drive's tray is open: the guest ejected the disc."""
        drives = await self.monitor.execute("query-block")
        return any(drive.get("tray_open", False) for drive in drives if drive["qdev"] == "optical")


class Monitor:
    """QEMU's machine protocol (QMP): commands, and the events that arrive between the replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.events = Transcript("QMP events")
        self._follower = asyncio.create_task(self._follow(reader))

    async def execute(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 (JSON)
        """Execute a command and return its result."""
        self._writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        async with asyncio.timeout(30):  # wait_for() of Python 3.11 loses a Ctrl-C that comes together with the reply
            reply = await self._replies.get()
        if "error" in reply:
            raise RuntimeError(f"QMP {command}: {reply['error']['desc']}")
        return reply["return"]

    async def ended(self, *, within: float | None) -> None:
        """Wait for QEMU to go away."""
        async with asyncio.timeout(within):
            await asyncio.shield(self._follower)

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):  # how a killed process ends a stream
            while line := await reader.readline():
                message = json.loads(line)
                if "event" in message:
                    self.events.feed(line)
                elif "QMP" not in message:
                    self._replies.put_nowait(message)
        self._replies.put_nowait({"error": {"desc": "QEMU has ended"}})  # for who still waits
        self.events.close()

    async def close(self) -> None:
        """End QEMU, if it still runs, and wait for it."""
        self._writer.write(b'{"execute": "quit"}\n')
        async with asyncio.timeout(30):
            await self._follower


@asynccontextmanager
async def running_machine(
    *,
    network: Network,
    directory: Path,
    boots: Sequence[str],
    product_uuid: str,
    mac: str,
    media: Path | None = None,
    drive: bool = True,
    console_log: Path | None = None,
    memory: int = 1024,
    architecture: Architecture = X64,
) -> AsyncIterator[Machine]:
    """Make a machine, which `start` starts, and end it with the context.

    `boots` are QEMU's arguments for what it boots, `mac` is written as in IMDS, `directory` is for the sockets to it.
    `media` is in its optical drive, if it is to have one.

    Raises: ProvisioningError(TOOL_NOT_FOUND), ProvisioningError(TOOL_FAILED) with what QEMU says against it.
    """
    async with AsyncExitStack() as stack:
        connecting = [await listen(directory / f"{name}.sock", stack) for name in ("qmp", "console")]
        qemu = Transcript("QEMU")
        log = f",logfile={quoted(console_log)}" if console_log else ""
        await network.spawn(
            qemu,
            *(find_tool(architecture.qemu), *architecture.options, *_BARE),
            *("-accel", "kvm" if is_accelerated(architecture) else "tcg,tb-size=256", "-m", str(memory)),
            *("-smbios", f"type=1,manufacturer=Microsoft Corporation,product=Virtual Machine,uuid={product_uuid}"),
            *("-smbios", f"type=3,manufacturer=Microsoft Corporation,asset={CHASSIS_ASSET_TAG}"),
            *("-device", "virtio-scsi-pci", "-device", "virtio-rng-pci"),
            *("-netdev", f"tap,id=net0,ifname={TAP},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=net0,id=nic0,mac={':'.join(textwrap.wrap(mac, 2))},romfile="),
            *("-chardev", f"socket,id=qmp,path={quoted(directory / 'qmp.sock')}", "-mon", "chardev=qmp,mode=control"),
            *("-chardev", f"socket,id=console,path={quoted(directory / 'console.sock')}{log}"),
            *("-serial", "chardev:console"),
            *boots,
            *(_optical_drive(media) if drive else ()),
        )
        (from_qmp, to_qmp), (from_console, to_console) = await _connected(connecting, qemu, architecture.qemu)
        for writer in (to_qmp, to_console):
            stack.push_async_callback(close, writer)
        console, monitor = Transcript("serial console"), Monitor(from_qmp, to_qmp)
        follower = asyncio.create_task(console.follow(from_console))
        try:
            await _greet(monitor, qemu, architecture.qemu)
            yield Machine(monitor, console)
        finally:
            await monitor.close()
            await follower


def firmware_uuid(vm_id: str) -> str:
    """Return what the firmware of a first-generation VM shows: the first three fields in the other byte order."""
    return str(uuid.UUID(bytes=uuid.UUID(vm_id).bytes_le))


def quoted(path: Path) -> str:
    """Return a path as a value in one of QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


async def listen(path: Path, stack: AsyncExitStack) -> asyncio.Future[Streams]:
    """Wait at `path` for QEMU, which connects when it starts."""
    connecting: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_unix_server(lambda *streams: connecting.set_result(streams), path)
    stack.callback(server.close)
    return connecting


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection that QEMU may have ended already, with something unread in it."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def _connected(connecting: Sequence[asyncio.Future[Streams]], qemu: Transcript, tool: str) -> list[Streams]:
    everyone: asyncio.Future[list[Streams]] = asyncio.gather(*connecting)
    ended = asyncio.create_task(qemu.closed())
    either: list[asyncio.Future[Any]] = [everyone, ended]
    await asyncio.wait(either, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if not everyone.done():
        everyone.cancel()
        raise ProvisioningError(Reason.TOOL_FAILED, tool=tool, detail=qemu.text.strip())
    return everyone.result()


async def _greet(monitor: Monitor, qemu: Transcript, tool: str) -> None:
    """Make the monitor take commands. QEMU connects before it opens its disks: one that it cannot read ends it here."""
    try:
        await monitor.execute("qmp_capabilities")
    except RuntimeError as error:
        await qemu.closed()
        raise ProvisioningError(Reason.TOOL_FAILED, tool=tool, detail=qemu.text.strip()) from error


def _optical_drive(media: Path | None) -> list[str]:
    # Without media the drive is there all the same, and empty.
    if media is None:
        return ["-device", "scsi-cd,id=optical"]
    return [
        *("-drive", f"file={quoted(media)},format=raw,if=none,id=media,media=cdrom,readonly=on"),
        *("-device", "scsi-cd,drive=media,id=optical"),
    ]
