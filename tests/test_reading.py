"""The media is read while the program is still being loaded, when the drive may not be there yet."""

from __future__ import annotations

import asyncio
import select
import shutil
from pathlib import Path

import pytest

from minprov.config import Options
from minprov.emulator.sample import sample_media
from minprov.errors import ProvisioningError, Reason
from minprov.model import Secret
from minprov.ovf import parse_ovf_env
from minprov.reading import Reading
from minprov.shacrypt import verify

WAIT = 0.05


def has_ended(reading: Reading, seconds: float) -> bool:
    """Tell whether there is an answer within so many seconds."""
    return bool(select.select([reading.answer], [], [], seconds)[0])


def test_the_wait_for_a_drive_counts_from_when_somebody_waits(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    reading = Reading(Options(media=(str(drive),)), wait=WAIT)
    assert not has_ended(reading, 10 * WAIT)
    with sample_media() as media:
        shutil.copy(media, tmp_path / "new")
        (tmp_path / "new").rename(drive)
    ovf_env, password_hash, *_ = asyncio.run(reading.end())
    password = parse_ovf_env(ovf_env).password
    assert isinstance(password, Secret)
    assert verify(password, password_hash or "")


def test_and_then_it_ends(tmp_path: Path) -> None:
    reading = Reading(Options(media=(str(tmp_path / "none"),)), wait=WAIT)
    with pytest.raises(ProvisioningError) as error:
        asyncio.run(reading.end())
    assert error.value.reason is Reason.MEDIA_NOT_FOUND
