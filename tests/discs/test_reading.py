"""The media is read while the program is still being loaded, when the drive may not be there yet."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from minprov.config import Options
from minprov.discs.reading import Reading
from minprov.emulator.sample import sample_media
from minprov.errors import ProvisioningError, Reason
from minprov.formats.sha_crypt import verify
from minprov.media import read_ovf_env
from minprov.ovf import parse_ovf_env

WAIT = 0.05


def has_ended(reading: Reading, seconds: float) -> bool:
    """Tell whether there is an answer within so many seconds."""
    return bool(select.select([reading.answer], [], [], seconds)[0])


def test_a_drive_is_waited_for_until_there_is_something_to_go_on_with(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    reading = Reading(Options(media=(str(drive),)))
    assert not has_ended(reading, 10 * WAIT)
    with sample_media() as image:
        shutil.copy(image, tmp_path / "new")
        sample = parse_ovf_env(read_ovf_env(str(image)))
        (tmp_path / "new").rename(drive)
    media = asyncio.run(reading.media())
    assert media.ovf == sample._replace(password=media.ovf.password)
    assert media.ovf.password
    assert sample.password
    assert media.ovf.password.reveal() == sample.password.reveal()
    assert media.password_hash
    assert verify(media.ovf.password, media.password_hash.reveal())
    assert media.ovf.password.reveal().encode() not in media.redacted_ovf_env


def test_and_then_it_ends(tmp_path: Path) -> None:
    reading = Reading(Options(media=(str(tmp_path / "none"),)))
    reading.limit_wait(WAIT)
    with pytest.raises(ProvisioningError) as error:
        asyncio.run(reading.end())
    assert error.value.reason is Reason.MEDIA_NOT_FOUND


def test_and_when_the_program_is_gone(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from minprov.config import Options; from minprov.discs.reading import Reading\n"
        "print(Reading(Options(media=(sys.argv[1],)))._child, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "none")]
    killed = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    with suppress(ProcessLookupError):  # it may be gone by now
        child = os.pidfd_open(int(killed.stdout))
        assert select.select([child], [], [], 10)[0]
