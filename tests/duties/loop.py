"""Loop devices with partitions, for tests of what is done with a disk."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def loop_device(image: Path) -> Iterator[str]:
    """Yield the device of an image, its partitions told to the kernel by partx(8): it may not know the table."""
    device = _run("losetup", "--find", "--show", str(image)).strip()
    try:
        subprocess.run(["partx", "--add", device], check=False, capture_output=True)
        yield device
    finally:
        subprocess.run(["partx", "--delete", device], check=False, capture_output=True)
        _run("losetup", "--detach", device)


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
