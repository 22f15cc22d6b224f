"""Count the instructions from start to end: a first boot in a fresh tree, against the import of the HTTP client alone.

What a shared machine's clock cannot show, one per cent, this does: the same run takes the same number, within some
thousandths. Counted by valgrind's callgrind, in user space and without the processes beside it. Needs root and
valgrind.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.startup import ENVIRONMENT, IMPORT_CLIENT, make_tree
from minprov.emulator.platform import Emulator
from minprov.emulator.sample import sample_media

TOTAL = re.compile(r"^totals: (\d+)", re.MULTILINE)


def count(argv: Sequence[str]) -> int:
    """Return the instructions of a command's own process, without those that it forks."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:  # the others still write
        counted = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={directory}/%p", *argv]
        # Sets and dictionaries of texts are then in the same order each time.
        environment = ENVIRONMENT | {"PYTHONHASHSEED": "0"}
        with subprocess.Popen(counted, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            _, messages = process.communicate()
        if process.returncode:
            raise SystemExit(f"{argv} failed: {messages.decode()}")
        return int(TOTAL.findall(Path(directory, str(process.pid)).read_text())[-1])


async def count_first_boot(command: Sequence[str]) -> int:
    """Count a first boot in a fresh tree."""
    with tempfile.TemporaryDirectory() as tree, sample_media() as media:
        make_tree(tree)
        async with Emulator() as platform:
            urls = ["--imds-url", platform.imds_url, "--wireserver-url", platform.wireserver_url]
            return await asyncio.to_thread(count, [*command, "--root", tree, "--media", str(media), *urls])


def main() -> None:
    """Print one line."""
    boot, client = asyncio.run(count_first_boot([sys.executable, "-m", "minprov"])), count(IMPORT_CLIENT)
    print(f"million instructions of the main process: {boot / 1e6:.0f}; import aiohttp {client / 1e6:.0f}")
    print(f"ratio {boot / client:.3f}")


if __name__ == "__main__":
    main()
