"""The media is found, and its files arrive byte for byte."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from minprov.errors import ProvisioningError, Reason
from minprov.media import find_media, read_media, read_ovf_env

if TYPE_CHECKING:
    from pathlib import Path

OVF_ENV = b'<?xml version="1.0" encoding="utf-8"?>\n<Environment/>\n'
CUSTOM_DATA = bytes(range(256)) * 250


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "ovf-env.xml").write_bytes(OVF_ENV)
    (tree / "CustomData.bin").write_bytes(CUSTOM_DATA)
    return tree


@pytest.mark.parametrize(
    ("options", "volume"), [("-udf", "UDF 1.02"), ("-J", "ISO 9660 with Joliet"), ("-R", "ISO 9660")]
)
@pytest.mark.skipif(shutil.which("genisoimage") is None, reason="genisoimage is not installed")
def test_an_image_file_is_read(tree: Path, tmp_path: Path, options: str, volume: str) -> None:
    image = tmp_path / "media.iso"
    subprocess.run(["genisoimage", "-quiet", options, "-o", image, tree], check=True)
    media = read_media(str(image))
    assert (media.ovf_env, media.custom_data) == (OVF_ENV, CUSTOM_DATA)
    assert (media.device, media.detail) == (None, f"{image}, {volume}")


def test_a_directory_is_read(tree: Path) -> None:
    media = read_media(str(tree))
    assert (media.ovf_env, media.custom_data, media.device) == (OVF_ENV, CUSTOM_DATA, None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_ovf_env_itself_is_read(tmp_path: Path, encoding: str) -> None:
    document = tmp_path / "anything.xml"
    document.write_bytes("\r\n<Environment/>".encode(encoding))
    assert read_ovf_env(str(document)) == document.read_bytes()


def test_find_media_takes_the_first_that_is_accepted(tree: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.xml"
    foreign.write_bytes(b"<Environment foreign=''/>")

    def accept(ovf_env: bytes) -> None:
        if b"foreign" in ovf_env:
            raise ProvisioningError(Reason.OVF_FOREIGN)

    assert find_media([str(foreign), str(tree)], wait=0, accept=accept).ovf_env == OVF_ENV
