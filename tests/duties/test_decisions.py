"""What is decided on what a disk may hold, each on a loop device; and that what is left alone is left as it is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from minprov.duties.resource_disk import disk
from minprov.duties.resource_disk.contents import look
from minprov.duties.resource_disk.decision import Leave, Make, Mount, decide
from minprov.duties.resource_disk.discovery import find_resource_disk
from minprov.duties.resource_disk.settings import FileSystem, Format, Options
from minprov.errors import ProvisioningError, Reason
from tests.duties.loop import loop_device

HERE = Path(__file__).parent
NOT_FOUND = 127
CONTENTS: dict[str, dict[str, Any]] = tomllib.loads((HERE / "contents.toml").read_text())

pytestmark = pytest.mark.root


def fill(directory: Path, content: dict[str, Any]) -> Path:
    image = directory / "disk"
    image.touch()
    script = f'D=$PWD/disk; truncate -s {content.get("size", "128M")} "$D"; . "$0"; {content["holds"]}'
    command = ["bash", "-c", script, f"{HERE}/contents.sh"]
    done = subprocess.run(command, cwd=directory, check=False, stdout=subprocess.DEVNULL)
    if done.returncode == NOT_FOUND:
        pytest.skip(f"lacks a program: {content['holds']}")
    done.check_returncode()
    return image


def options_for(content: dict[str, Any], device: str, directory: Path) -> Options:
    return Options(
        device=device,
        mount_point="/mnt/minprov-test",
        file_system=FileSystem(content.get("file-system", "ext4")),
        format=Format(content.get("format", "empty")),
    )


def digest(image: Path) -> str:
    """Return a hash of all blocks that are not zero, with their places."""
    hashed, block = sha256(), 1 << 16
    zeros = bytes(block)
    with image.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        at = 0
        while at < end:
            try:
                at = os.lseek(stream.fileno(), at, os.SEEK_DATA) // block * block
            except OSError:  # nothing but a hole from here on
                break
            piece = os.pread(stream.fileno(), block, at)
            if piece != zeros[: len(piece)]:
                hashed.update(at.to_bytes(8, "little") + piece)
            at += block
    return hashed.hexdigest()


@pytest.mark.parametrize("name", CONTENTS)
def test_decision_on(name: str, tmp_path: Path) -> None:
    content = CONTENTS[name]
    image = fill(tmp_path, content)
    before = digest(image)
    with loop_device(tmp_path / content.get("kernel", "disk")) as device:
        if "kernel" in content:  # what is on the disk by now is not what the kernel has read
            Path(device).write_bytes(image.read_bytes())
        options = options_for(content, device, tmp_path)
        found = find_resource_disk(options)
        assert found is not None
        contents = asyncio.run(look(found))
        decision = decide(found, contents, options, on_azure=False, interrupted=None)
        if content.get("decision") == "mount":
            assert decision == Mount(found.nodes[content["node"]])
        elif content.get("decision") == "make":
            assert isinstance(decision, Make)
            assert decision.node == found.nodes[content["node"]]
        else:
            assert isinstance(decision, Leave)
            assert decision.why.reason is Reason.RESOURCE_DISK_HOLDS_DATA
            assert content["says"] in str(decision.why)
            here = disk.Here(str(tmp_path / "state"), None, on_azure=False)
            with pytest.raises(ProvisioningError) as refused:
                asyncio.run(disk.converge(options, here))
            assert refused.value.reason is Reason.RESOURCE_DISK_HOLDS_DATA
    assert digest(image) == before


def test_there_are_contents_enough() -> None:
    assert len(CONTENTS) >= 60
