"""The sample VM's platform with ready-made media: all that ``minprov --dry-run --emulated`` needs, on any laptop.

The image is pure UDF (`data/make_sample_media.py` made it with genisoimage) and is kept compressed; a test holds that
it carries the ovf-env of `SAMPLE_VM`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .vm import SAMPLE_VM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_IMAGE = Path(__file__).parent / "data" / "sample-media.img.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedPlatform:
    """Where the sample VM's platform is, for a program that is to be pointed at it."""

    imds_url: str
    wireserver_url: str
    media: str
    vm_id: str


@contextlib.contextmanager
def sample_media() -> Iterator[Path]:
    """Unpack the sample image into a temporary directory and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="minprov-sample-") as directory:
        image = Path(directory) / "sample-media.img"
        image.write_bytes(gzip.decompress(_IMAGE.read_bytes()))
        yield image


@contextlib.asynccontextmanager
async def emulated_platform() -> AsyncIterator[EmulatedPlatform]:
    """Serve the sample VM's platform on loopback, at ports that are free."""
    from .platform import Emulator

    media = sample_media()
    image = await asyncio.to_thread(media.__enter__)
    try:
        async with Emulator(SAMPLE_VM) as platform:
            yield EmulatedPlatform(
                imds_url=platform.imds_url,
                wireserver_url=platform.wireserver_url,
                media=str(image),
                vm_id=SAMPLE_VM.vm_id,
            )
    finally:
        await asyncio.to_thread(media.__exit__, None, None, None)
