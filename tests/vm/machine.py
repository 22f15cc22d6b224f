"""One virtual machine under QEMU with Azure's identity: its serial console, its root shell, its monitor, its disk.

The processor starts only when every channel is being listened to, so nothing that the guest says is lost. KVM is used
where there is one; software emulation, about fifteen times slower on processor work, is enough.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm.image import Image
from tests.vm.network import MAC, TAP, Network
from tests.vm.transcript import Transcript

# "MSFT AZURE VM": how every Azure machine names itself (cloud-init, sources/azure/identity.py).
CHASSIS_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command in the guest wrote, both streams, and its exit status."""

    status: int
    output: str

    @property
    def lines(self) -> list[str]:
        """The output, if the command succeeded; else its end, which tells why not."""
        return self.output.splitlines() if self.status == 0 else [f"exit status {self.status}", self.output[-300:]]


class Disk:
    """The guest's root disk as a file, read without mounting it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, path: str) -> bytes:
        """Return a file's bytes. Raise FileNotFoundError if the guest has no such file."""
        done = subprocess.run(["debugfs", "-R", f'cat "{path}"', self.path], capture_output=True, check=True)
        if b"File not found" in done.stderr:
            raise FileNotFoundError(path)
        return done.stdout

    def exists(self, path: str) -> bool:
        """Tell whether the guest has such a file."""
        try:
            self.read(path)
        except FileNotFoundError:
            return False
        return True

    def contains(self, data: bytes) -> bool:
        """Tell whether the bytes are anywhere on the disk, in a file or in what is left of one."""
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            return whole.find(data) >= 0


class Machine:
    """A running machine."""

    def __init__(self, monitor: Monitor, console: Transcript, shell: asyncio.StreamWriter, answers: Transcript) -> None:
        self.monitor = monitor
        self.console = console
        self._shell = shell
        self._answers = answers

    async def shell_ready(self, *, within: float) -> None:
        """Wait for the guest's root shell: its init has begun to start services."""
        await self._answers.expect("vm-shell is listening\n", within=within)

    async def ask(self, command: str, *, within: float = 60) -> Answer:
        """Run one line of shell as root in the guest."""
        self._shell.write(command.encode() + b"\n")
        output, match = await self._answers.expect_after(r"\x1e(\d+)\n", within=within)
        return Answer(int(match[1]), output)

    async def set_link(self, *, up: bool) -> None:
        """Plug the network cable in or out."""
        await self.monitor.execute("set_link", name="nic0", up=up)

    async def tray_is_open(self) -> bool:
        """Tell whether the optical drive's tray is open: the guest ejected the disc."""
        drives = await self.monitor.execute("query-block")
        return any(drive.get("tray_open", False) for drive in drives if drive["qdev"] == "optical")

    async def power_off(self, *, within: float = 90) -> None:
        """Shut the guest down in an orderly way and wait for the machine to end."""
        self._shell.write(b"poweroff\n")
        await self.monitor.ended(within=within)


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
        reply = await asyncio.wait_for(self._replies.get(), 30)
        if "error" in reply:
            raise RuntimeError(f"QMP {command}: {reply['error']['desc']}")
        return reply["return"]

    async def ended(self, *, within: float) -> None:
        """Wait for QEMU to go away."""
        await asyncio.wait_for(asyncio.shield(self._follower), within)

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):  # how a killed process ends a stream
            while line := await reader.readline():
                message = json.loads(line)
                if "event" in message:
                    self.events.feed(line)
                elif "QMP" not in message:
                    self._replies.put_nowait(message)
        self.events.close()

    async def close(self) -> None:
        """End QEMU, if it still runs, and wait for it."""
        self._writer.write(b'{"execute": "quit"}\n')
        await asyncio.wait_for(self._follower, 30)


@asynccontextmanager
async def running_machine(
    *,
    network: Network,
    image: Image,
    disk: Path,
    product_uuid: str,
    directory: Path,
    console_log: Path,
    media: Path | None = None,
    drive: bool = True,
    append: str = "",
    link: bool = True,
) -> AsyncIterator[Machine]:
    """Run a machine on `disk` and end it with the context; `directory` is for the sockets to it.

    `media` is in its optical drive, which is empty otherwise; a machine without a drive has it as its second disk.
    """
    async with AsyncExitStack() as stack:
        channels = [await _listen(directory / f"{name}.sock", stack) for name in ("qmp", "console", "shell")]
        qemu = Transcript("QEMU")
        await network.spawn(
            qemu, *_qemu(image, disk, product_uuid, directory, console_log, append), *_optical(media, drive=drive)
        )
        try:
            async with asyncio.timeout(30):
                streams = [await channel for channel in channels]
        except TimeoutError as error:
            raise RuntimeError(f"QEMU did not start: {qemu.text}") from error
        for _, writer in streams:
            stack.push_async_callback(_close, writer)
        (from_qmp, to_qmp), (from_console, _), (from_shell, to_shell) = streams
        console, answers = Transcript("serial console"), Transcript("root shell")
        monitor = Monitor(from_qmp, to_qmp)
        followers = [asyncio.create_task(console.follow(from_console)), asyncio.create_task(answers.follow(from_shell))]
        try:
            await monitor.execute("qmp_capabilities")
            machine = Machine(monitor, console, to_shell, answers)
            await machine.set_link(up=link)
            await monitor.execute("cont")
            yield machine
        finally:
            await monitor.close()
            await asyncio.gather(*followers)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):  # QEMU may be gone with a command unread
        await writer.wait_closed()


async def _listen(path: Path, stack: AsyncExitStack) -> asyncio.Future[Streams]:
    """Wait at `path` for QEMU, which connects when it starts."""
    connected: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_unix_server(lambda *streams: connected.set_result(streams), path)
    stack.callback(server.close)
    return connected


def _qemu(image: Image, disk: Path, product_uuid: str, directory: Path, console_log: Path, append: str) -> list[str]:
    return [
        *("qemu-system-x86_64", "-accel", "tcg,tb-size=256", "-machine", "pc", "-cpu", "max,la57=off,svm=off"),
        *("-smp", "1", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot", "-S"),
        *("-smbios", "type=1,manufacturer=Microsoft Corporation,product=Virtual Machine,uuid=" + product_uuid),
        *("-smbios", "type=3,manufacturer=Microsoft Corporation,asset=" + CHASSIS_ASSET_TAG),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", f"console=ttyS0 quiet {append}".strip()),
        *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"),
        *("-netdev", f"tap,id=net0,ifname={TAP},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=net0,id=nic0,mac={MAC},romfile="),
        *("-device", "virtio-rng-pci", "-device", "virtio-scsi-pci"),
        *("-chardev", f"socket,id=console,path={directory}/console.sock,logfile={console_log}"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=shell,path={directory}/shell.sock", "-serial", "chardev:shell"),
        *("-chardev", f"socket,id=qmp,path={directory}/qmp.sock", "-mon", "chardev=qmp,mode=control"),
    ]


def _optical(media: Path | None, *, drive: bool) -> list[str]:
    if not drive:
        return ["-drive", f"file={media},format=raw,if=virtio,readonly=on"]
    if not media:
        return ["-device", "scsi-cd,id=optical"]
    disc = f"file={media},format=raw,if=none,id=media,media=cdrom,readonly=on"
    return ["-drive", disc, "-device", "scsi-cd,id=optical,drive=media"]
