"""The machine of a test guest: QEMU starts its kernel, and a root shell on its second serial port does as told."""

from __future__ import annotations

import asyncio
import mmap
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from minprov.emulator.guest.login import Answer
from minprov.emulator.guest.machine import Machine, close, firmware_uuid, listen, quoted, running_machine
from minprov.emulator.guest.network import Network
from minprov.emulator.guest.transcript import Transcript
from minprov.emulator.vm import VirtualMachine
from tests.vm.image import Image


class Disk:
    """The guest's root disk as a file, read without mounting it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, path: str) -> bytes:
        """Return a file's bytes. Raise FileNotFoundError if the guest has no such file."""
        done = subprocess.run(["debugfs", "-R", f'cat "{path}"', self.path], capture_output=True, check=True)
        if b"File not found" in done.stderr:
            raise FileNotFoundError(path)
        _, *complaints = done.stderr.splitlines()  # the first line is its version
        if complaints and not done.stdout:  # its exit status is 0 all the same
            raise RuntimeError(b"\n".join(complaints).decode())
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


class ObedientMachine:
    """A running machine whose guest has the root shell."""

    def __init__(self, machine: Machine, shell: asyncio.StreamWriter, answers: Transcript) -> None:
        self.monitor = machine.monitor
        self.console = machine.console
        self.start = machine.start
        self.set_link = machine.set_link
        self.tray_is_open = machine.tray_is_open
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

    async def power_off(self, *, within: float = 240) -> None:
        """Shut the guest down in an orderly way and wait for the machine to end."""
        self._shell.write(b"poweroff\n")
        await self.monitor.ended(within=within)


@asynccontextmanager
async def obedient_machine(
    *,
    network: Network,
    image: Image,
    disk: Path,
    vm: VirtualMachine,
    directory: Path,
    console_log: Path,
    media: Path | None,
    drive: bool,
    append: str,
    devices: Sequence[str] = (),
    memory: int = 1024,
) -> AsyncIterator[ObedientMachine]:
    """Make a machine that boots the image's kernel with `disk`, and end it with the context.

    `media` is in its optical drive, which is empty otherwise; a machine without a drive has it as its second disk.
    """
    socket = directory / "shell.sock"
    boots = (
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-no-reboot"),
        # On a busy host the kernel would find its timer too slow. The link is eth0 in whatever slot.
        *("-append", f"console=ttyS0 quiet no_timer_check panic=-1 net.ifnames=0 {append}".strip()),
        *("-drive", f"file={quoted(disk)},format=raw,if=virtio,cache=unsafe"),
        *(("-drive", f"file={quoted(media)},format=raw,if=virtio,readonly=on") if media and not drive else ()),
        *devices,
        *("-chardev", f"socket,id=shell,path={quoted(socket)}", "-serial", "chardev:shell"),
    )
    async with AsyncExitStack() as stack:
        connecting = await listen(socket, stack)
        machine = await stack.enter_async_context(
            running_machine(
                network=network,
                directory=directory,
                boots=boots,
                product_uuid=firmware_uuid(vm.vm_id),
                mac=vm.mac_address,
                media=media,
                drive=drive,
                console_log=console_log,
                memory=memory,
            )
        )
        reader, writer = await connecting
        stack.push_async_callback(close, writer)
        answers = Transcript("root shell")
        follower = asyncio.create_task(answers.follow(reader))
        stack.callback(follower.cancel)
        yield ObedientMachine(machine, writer, answers)
