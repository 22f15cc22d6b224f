"""A guest in its surroundings: the test's network, the emulated platform, the machine, and ways to log in.

`boot` starts all of it and is what tests use. What the guest said and did is kept in ``build/vm/<name>``: the serial
console, the DHCP server's log, the platform's record; and the disk where KEEP_DISKS is in the environment.
"""

from __future__ import annotations

import base64
import functools
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from minprov.emulator.guest.login import Answer, KeyPair, Login, make_key_pair
from minprov.emulator.guest.network import Network, platform_network
from minprov.emulator.guest.platform import Platform, start_platform
from minprov.emulator.guest.transcript import Transcript
from minprov.emulator.media import write_media
from minprov.emulator.tables import convert_table
from minprov.emulator.vm import VM_CONVERTERS, VirtualMachine
from tests.vm.image import PROJECT, cache_directory, ensure_image
from tests.vm.machine import Disk, ObedientMachine, obedient_machine
from tests.vm.recipes import Recipe

ARTEFACTS = PROJECT / "build/vm"
VM_ID = "7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14"
HOSTNAME = "web-01"
USERNAME = "azureuser"
PASSWORD = "Correct-Horse-7"
CUSTOM_DATA = bytes(range(256))

_KEY_LOCK = threading.Lock()


class Guest:
    """A booted guest and everything around it."""

    def __init__(
        self, *, network: Network, platform: Platform, machine: ObedientMachine, disk: Disk, directory: Path
    ) -> None:
        self.network = network
        self.platform = platform
        self.machine = machine
        self.disk = disk
        self._directory = directory

    async def ask(self, command: str, *, within: float = 60) -> Answer:
        """Run one line of shell as root in the guest, by serial port."""
        return await self.machine.ask(command, within=within)

    async def ssh_with_key(self, command: str, *, user: str = USERNAME) -> Answer:
        """Log in over the network with the key and nothing else, and run a command."""
        return await Login.with_key(self.network, user, key_pair()).run(command)

    async def ssh_with_password(self, command: str, *, user: str = USERNAME) -> Answer:
        """Log in over the network with the password and nothing else, and run a command."""
        return await Login.with_password(self.network, user, PASSWORD, self._directory).run(command)


@contextmanager
def new_disk(recipe: Recipe) -> Iterator[Disk]:
    """Make a copy of the recipe's disk, for boots that follow one another on it."""
    master = ensure_image(recipe).disk
    with tempfile.TemporaryDirectory(prefix="disk-", dir=cache_directory()) as directory:
        path = Path(directory, "root.ext4")
        subprocess.run(["cp", "--sparse=always", master, path], check=True)
        yield Disk(path)


@asynccontextmanager
async def boot(
    recipe: Recipe,
    *,
    name: str,
    vm: Mapping[str, object] | None = None,
    faults: str = "",
    media: bool = True,
    drive: bool = True,
    disk: Disk | None = None,
    append: str = "",
    link: bool = True,
    devices: Sequence[str] = (),
    memory: int = 1024,
) -> AsyncIterator[Guest]:
    """Boot a guest of `recipe` on a copy of its disk, or on `disk`, as the VM that `vm` describes to the platform.

    `vm` and `faults` are the emulator's own files; `vm` has a key, a password and customData unless it says otherwise
    (None takes a property away). `devices` are further arguments of QEMU.
    """
    image = ensure_image(recipe)
    artefacts = _fresh_directory(ARTEFACTS / name)
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="boot-", dir=cache_directory())))
        (work / "faults.toml").write_text(faults)
        disk = disk or stack.enter_context(new_disk(recipe))
        if "KEEP_DISKS" in os.environ:
            stack.callback(_keep_disk, disk, artefacts)
        network = await stack.enter_async_context(platform_network())
        machine_vm = _virtual_machine(vm or {})
        platform = await start_platform(network, machine_vm, directory=work, faults=work / "faults.toml")
        stack.callback(_keep, artefacts, platform.transcript, network.dhcp)
        write_media(work / "media.img", machine_vm)
        machine = await stack.enter_async_context(
            obedient_machine(
                network=network,
                image=image,
                disk=disk.path,
                vm=machine_vm,
                directory=work,
                console_log=artefacts / "console.log",
                media=work / "media.img" if media else None,
                drive=drive,
                append=f"{recipe.append} {append}",
                devices=devices,
                memory=memory,
            )
        )
        await machine.set_link(up=link)
        await machine.start()
        yield Guest(network=network, platform=platform, machine=machine, disk=disk, directory=work)


def _fresh_directory(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def key_pair() -> KeyPair:
    """Return the SSH key of this test run."""
    with _KEY_LOCK:
        return _make_key()


@functools.cache
def _make_key() -> KeyPair:
    return make_key_pair(_fresh_directory(ARTEFACTS / "key"))


def _virtual_machine(changes: Mapping[str, object]) -> VirtualMachine:
    properties = {
        "vm-id": VM_ID,
        "hostname": HOSTNAME,
        "username": USERNAME,
        "password": PASSWORD,
        "ssh-public-keys": [{"value": key_pair().public, "path": f"/home/{USERNAME}/.ssh/authorized_keys"}],
        "custom-data": {"base64": base64.b64encode(CUSTOM_DATA).decode()},
        **changes,
    }
    given = {key: value for key, value in properties.items() if value is not None}
    return VirtualMachine(**convert_table(given, VM_CONVERTERS, file=Path("vm")))


def _keep_disk(disk: Disk, artefacts: Path) -> None:
    subprocess.run(["cp", "--sparse=always", disk.path, artefacts / "disk.img"], check=True)


def _keep(artefacts: Path, record: Transcript, dhcp: Transcript) -> None:
    (artefacts / "platform.jsonl").write_text(record.text)
    (artefacts / "dhcp.log").write_text(dhcp.text)
