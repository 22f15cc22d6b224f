"""A guest in its surroundings: the test's network, the emulated platform, the machine, and ways to log in.

`boot` starts all of it and is what tests use. What the guest said and did is kept in ``build/vm/<name>``: the serial
console, the DHCP server's log, the platform's record.
"""

from __future__ import annotations

import base64
import functools
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm.image import PROJECT, cache_directory, ensure_image
from tests.vm.machine import Answer, Disk, Machine, running_machine
from tests.vm.network import GUEST, MAC, Network, test_network
from tests.vm.recipes import Recipe
from tests.vm.transcript import Transcript

ARTEFACTS = PROJECT / "build/vm"
VM_ID = "7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14"
HOSTNAME = "web-01"
USERNAME = "azureuser"
PASSWORD = "Correct-Horse-7"
CUSTOM_DATA = bytes(range(256))

SSH = (
    *(
        "ssh",
        "-F",
        "none",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
    ),
    # sshd may not be listening yet: try once a second.
    *("-o", "ConnectTimeout=20", "-o", "ConnectionAttempts=120", "-o", "NumberOfPasswordPrompts=1"),
)

_KEY_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """An SSH key made for one test run."""

    private: Path
    public: str


class Platform:
    """The emulated platform, as the separate process that a user would start."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return the record so far."""
        return [json.loads(line) for _, line in self._transcript.arrivals if line.startswith("{")]

    @property
    def requests(self) -> list[str]:
        """Return the endpoints asked so far, in order."""
        return [event["endpoint"] for event in self.events if event["event"] == "request"]

    async def reported(self, *states: str, within: float) -> dict[str, Any]:
        """Wait for the next health report with one of `states` (not a sign of life), and return its record."""
        pattern = rf'^\{{"event": "health".*"state": "(?:{"|".join(states)})", "substatus": (?!"Provisioning").*\}}$'
        event: dict[str, Any] = json.loads((await self._transcript.expect(pattern, within=within))[0])
        return event


class Guest:
    """A booted guest and everything around it."""

    def __init__(self, *, network: Network, platform: Platform, machine: Machine, disk: Disk, key: KeyPair) -> None:
        self.network = network
        self.platform = platform
        self.machine = machine
        self.disk = disk
        self._key = key

    async def ask(self, command: str, *, within: float = 60) -> Answer:
        """Run one line of shell as root in the guest, by serial port."""
        return await self.machine.ask(command, within=within)

    async def ssh_with_key(self, command: str, *, user: str = USERNAME) -> Answer:
        """Log in over the network with the key and nothing else, and run a command."""
        only_key = ("-o", "PreferredAuthentications=publickey", "-o", "IdentitiesOnly=yes", "-i", self._key.private)
        return Answer(*await self.network.run(*SSH, *only_key, f"{user}@{GUEST}", command, within=240))

    async def ssh_with_password(self, command: str, *, user: str = USERNAME) -> Answer:
        """Log in over the network with the password and nothing else, and run a command."""
        only_password = (
            "-o",
            "PreferredAuthentications=password,keyboard-interactive",
            "-o",
            "PubkeyAuthentication=no",
        )
        typed = ("sshpass", "-p", PASSWORD)
        return Answer(*await self.network.run(*typed, *SSH, *only_password, f"{user}@{GUEST}", command, within=240))


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
) -> AsyncIterator[Guest]:
    """Boot a guest of `recipe` on a copy of its disk, or on `disk`, as the VM that `vm` describes to the platform.

    `vm` and `faults` are the emulator's own files; `vm` has a key, a password and customData unless it says otherwise
    (None takes a property away).
    """
    image = ensure_image(recipe)
    artefacts = _fresh_directory(ARTEFACTS / name)
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="boot-", dir=cache_directory())))
        key = key_pair()
        (work / "vm.toml").write_text(_vm_file(key, vm or {}))
        (work / "faults.toml").write_text(faults)
        disk = disk or stack.enter_context(new_disk(recipe))
        network = await stack.enter_async_context(test_network())
        record = Transcript("the platform")
        stack.callback(_keep, artefacts, record, network.dhcp)
        await network.spawn(
            record,
            *(sys.executable, "-m", "minprov.emulator", "--real-addresses", "--log", "-"),
            *("--vm", work / "vm.toml", "--faults", work / "faults.toml", "--write-media", work / "media.img"),
        )
        await record.expect('"event": "listening"', within=30)
        machine = await stack.enter_async_context(
            running_machine(
                network=network,
                image=image,
                disk=disk.path,
                product_uuid=product_uuid(str((vm or {}).get("vm-id", VM_ID))),
                directory=work,
                console_log=artefacts / "console.log",
                media=work / "media.img" if media else None,
                drive=drive,
                append=f"{recipe.append} {append}",
                link=link,
            )
        )
        yield Guest(network=network, platform=Platform(record), machine=machine, disk=disk, key=key)


def product_uuid(vm_id: str) -> str:
    """Return what the firmware of a first-generation VM shows: the first three fields in the other byte order."""
    return str(uuid.UUID(bytes=uuid.UUID(vm_id).bytes_le))


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
    path = _fresh_directory(ARTEFACTS / "key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vm-test", "-f", path], check=True)
    return KeyPair(private=path, public=path.with_suffix(".pub").read_text().strip())


def _vm_file(key: KeyPair, changes: Mapping[str, object]) -> str:
    properties = {
        "vm-id": VM_ID,
        "hostname": HOSTNAME,
        "username": USERNAME,
        "password": PASSWORD,
        "ssh-public-keys": [{"value": key.public, "path": f"/home/{USERNAME}/.ssh/authorized_keys"}],
        "custom-data": CUSTOM_DATA,
        "mac-address": MAC.replace(":", "").upper(),
        **changes,
    }
    return "".join(f"{name} = {_toml(value)}\n" for name, value in properties.items() if value is not None)


def _toml(value: object) -> str:
    if isinstance(value, bytes):
        return _toml({"base64": base64.b64encode(value).decode()})
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)  # a JSON string, number or boolean is one of TOML as well


def _keep(artefacts: Path, record: Transcript, dhcp: Transcript) -> None:
    (artefacts / "platform.jsonl").write_text(record.text)
    (artefacts / "dhcp.log").write_text(dhcp.text)
