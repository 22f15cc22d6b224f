"""The emulated platform at its real addresses, as the separate process that a user would start."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from minprov.emulator.vm import dump_vm
from minprov.errors import ProvisioningError, Reason

from .transcript import Transcript, UnheardError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from minprov.emulator.vm import VirtualMachine

    from .network import Network


class Platform:
    """A running platform, known by its record."""

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return the record so far."""
        return [json.loads(line) for _, line in self.transcript.arrivals if line.startswith("{")]

    @property
    def requests(self) -> list[str]:
        """Return the endpoints asked so far, in order."""
        return [event["endpoint"] for event in self.events if event["event"] == "request"]

    async def reported(self, *states: str, within: float) -> dict[str, Any]:
        """Wait for the next health report with one of `states` (not a sign of life), and return its record.

        Raises: UnheardError if there is none within so many seconds.
        """
        pattern = rf'^\{{"event": "health".*"state": "(?:{"|".join(states)})", "substatus": (?!"Provisioning").*\}}$'
        event: dict[str, Any] = json.loads((await self.transcript.expect(pattern, within=within))[0])
        return event


async def start_platform(
    network: Network,
    vm: VirtualMachine,
    *,
    directory: Path,
    faults: Path | None = None,
    on_line: Callable[[float, str], None] | None = None,
) -> Platform:
    """Start ``python -m minprov.emulator`` for as long as the network lives; `directory` gets a file with the VM.

    Raises: ProvisioningError(TOOL_FAILED) with what it says.
    """
    description = directory / "vm.toml"
    description.write_text(dump_vm(vm), encoding="utf-8")
    arguments = ["--real-addresses", "--log", "-", "--vm", description, *(("--faults", faults) if faults else ())]
    record = Transcript("the platform", on_line=on_line)
    await network.spawn(record, sys.executable, "-m", "minprov.emulator", *arguments)
    try:
        await record.expect('"event": "listening"', within=30)
    except UnheardError as error:
        detail = record.text.strip()
        raise ProvisioningError(Reason.TOOL_FAILED, tool="python -m minprov.emulator", detail=detail) from error
    return Platform(record)
