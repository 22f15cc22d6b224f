"""Run the whole program as a process of its own, on a tree of its own, against an emulated platform."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from minprov.emulator.platform import Emulator
from minprov.emulator.sample import sample_media

PROPERTIES_WITH_TOOLS = ("user", "password", "ssh-keys", "host-keys", "sshd", "sudo")
NOBODY = "http://127.0.0.1:9"
"""Where connections are refused: the discard port, which nothing serves any more."""


def on(platform: Emulator, test: Callable[[Emulator], Awaitable[None]]) -> None:
    """Run a test while the platform serves."""

    async def main() -> None:
        async with platform:
            await test(platform)

    asyncio.run(main())


class WholeRun:
    """A tree, the configuration for it, and the processes started on it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.console = directory / "console"
        self.pool = directory / "kvp_pool_1"
        self.media = directory / "media.img"
        self._config = directory / "minprov.toml"
        (self.root / "etc").mkdir(parents=True)
        self.console.touch()
        self.pool.touch()
        with sample_media() as image:
            self.media.write_bytes(image.read_bytes())
        settings = {f"{name}.policy": "off" for name in PROPERTIES_WITH_TOOLS}
        self.settings: dict[str, object] = settings | {
            "report.console": str(self.console),
            "report.kvp-pool": str(self.pool),
            "sources.media-wait": 0.1,
        }

    async def start(
        self,
        platform: Emulator | None,
        *flags: str,
        seconds: float = 30,
        code: str | None = None,
        before: str | None = None,
        env: dict[str, str] | None = None,
    ) -> asyncio.subprocess.Process:
        """Start the program, as it is or by `code`; `before` is a shell command for a mount namespace of its own."""
        self._config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in self.settings.items()))
        arguments = ["--root", str(self.root), "--config", str(self._config), "--media", str(self.media)]
        arguments += ["--imds-url", platform.imds_url if platform else NOBODY]
        arguments += ["--wireserver-url", platform.wireserver_url if platform else NOBODY]
        arguments += ["--timeout", str(seconds), "--log-level", "debug", *flags]
        command = [sys.executable, *(["-c", code] if code else ["-m", "minprov"]), *arguments]
        if before:
            unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f'{before}; exec "$@"', "sh"]
            command = unshare + command
        return await asyncio.create_subprocess_exec(
            *command,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    async def status(self, *flags: str) -> Ended:
        """Ask for the last run's result."""
        command = [sys.executable, "-m", "minprov", "status", "--root", str(self.root), "--config", str(self._config)]
        return await ended(
            await asyncio.create_subprocess_exec(
                *command, *flags, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )

    def report(self) -> dict[str, Any]:
        """Return the report that the last run stored."""
        document: dict[str, Any] = json.loads((self.root / "var/lib/minprov/report.json").read_text())
        return document

    def console_lines(self) -> list[str]:
        """Return what the console was told."""
        return self.console.read_text().splitlines()

    def host_report(self) -> str:
        """Return the value of the pool's only record."""
        contents = self.pool.read_bytes()
        assert len(contents) == 2560
        assert contents[:512].rstrip(b"\0") == b"PROVISIONING_REPORT"
        return contents[512:].rstrip(b"\0").decode()


class Ended:
    """A process that has ended: its status, its output, and how many seconds it took since it was waited for."""

    def __init__(self, status: int, stdout: str, stderr: str, seconds: float) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        self.seconds = seconds


async def ended(process: asyncio.subprocess.Process) -> Ended:
    """Wait for a process to end."""
    start = time.monotonic()
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode(), time.monotonic() - start)


async def terminate(process: asyncio.subprocess.Process) -> Ended:
    """Send SIGTERM and wait for the end."""
    process.send_signal(signal.SIGTERM)
    return await ended(process)
