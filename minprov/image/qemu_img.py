"""qemu-img, which reads the formats that are not the disk's plain bytes; limited, since images come from anywhere."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

from minprov.errors import ProvisioningError, Reason
from minprov.limits import QEMU_IMG_LIMIT
from minprov.machine.tools import PATH, find_tool

if TYPE_CHECKING:
    from minprov.formats.disk_image import ImageFormat
    from minprov.image.progress import Progress

MAX_INFO = 1 << 20
INFO_MEMORY = 1 << 30
"""A crafted header made qemu-img take all memory there was (CVE-2015-5162); OpenStack gives it as much."""
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")
_ENVIRONMENT = {"PATH": PATH, "LANG": "C.UTF-8"}


def info(path: str, image_format: ImageFormat) -> dict[str, Any]:
    """Return what `qemu-img info` tells of an image.

    Raises:
        ProvisioningError: IMAGE_UNREADABLE if it is not installed, IMAGE_INVALID if it cannot open the image.

    """
    # By name and option, so that no part of a name is taken for an option or a protocol.
    argv = [_program(path), "info", "--output=json", "--image-opts", _options(path, image_format)]
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_ENVIRONMENT
    )
    with process:
        resource.prlimit(process.pid, resource.RLIMIT_AS, (INFO_MEMORY, INFO_MEMORY))
        try:
            output, errors = process.communicate(timeout=QEMU_IMG_LIMIT)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise _refused(path, f"no answer after {QEMU_IMG_LIMIT:g} s") from error
    if process.returncode:
        raise _refused(path, _last_words(errors))
    try:
        described = json.loads(output[:MAX_INFO])
    except ValueError as error:
        raise _refused(path, "no JSON") from error
    return described if isinstance(described, dict) else {}


def convert(path: str, image_format: ImageFormat, target: str, progress: Progress) -> None:
    """Write the image's disk into `target`, a file of the disk's size that has no data yet; zeros stay holes.

    Raises:
        ProvisioningError: IMAGE_UNREADABLE, IMAGE_INVALID, as `info`.

    """
    argv = [
        *(_program(path), "convert", "-p", "-n", "--target-is-zero", "-S", "64k", "-O", "raw"),
        *("--image-opts", _options(path, image_format), target),
    ]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=_ENVIRONMENT, bufsize=0
        )
        with process:
            assert process.stdout is not None  # noqa: S101  # a pipe was asked for
            try:
                while piece := process.stdout.read(4096):
                    for percent in _PERCENT.findall(piece)[-1:]:
                        progress.show(float(percent) / 100)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            errors.seek(0)
            raise _refused(path, _last_words(errors.read(MAX_INFO)))


def _program(path: str) -> str:
    program = find_tool("qemu-img")
    if program is None:
        detail, hint = "qemu-img is not installed, which reads this format", "install qemu-img (Debian: qemu-utils)"
        raise ProvisioningError(Reason.IMAGE_UNREADABLE, image=path, detail=detail, hint=hint)
    return program


def _options(path: str, image_format: ImageFormat) -> str:
    name = path.replace(",", ",,")
    return f"driver={image_format.driver},read-only=on,file.driver=file,file.filename={name}"


def _refused(path: str, detail: str) -> ProvisioningError:
    return ProvisioningError(Reason.IMAGE_INVALID, image=path, tool="qemu-img", detail=detail)


def _last_words(errors: bytes) -> str:
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("qemu-img: ")[:200] if lines else "it ended without a word"
