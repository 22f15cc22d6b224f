"""The EFI system partition, read by mtools: the kernel may lack vfat, and who is not root cannot mount.

mtools writes nothing but its standard output here. Names come from whoever made the image, so that a copy of the
partition is written by this module, below one directory, and is bounded in files and bytes.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
from typing import IO

from minprov.errors import ProvisioningError, Reason
from minprov.limits import ESP_LIMIT
from minprov.machine.tools import PATH, find_tool

FALLBACK_LOADERS = {"BOOTX64.EFI": "x64", "BOOTAA64.EFI": "Arm64"}
"""By file name, the architecture as Azure calls it; in EFI/BOOT (UEFI 2.10 §3.5.1.1)."""
MAX_FILES = 2000
MAX_BYTES = 1 << 30
MAX_LISTING = 1 << 20
_ENVIRONMENT = {"PATH": PATH, "LANG": "C.UTF-8", "MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"}


def fallback_loaders(image: str, offset: int) -> list[str] | None:
    """Return the loaders on the partition at `offset` that firmware finds; None if it cannot be read."""
    try:
        names = {os.path.basename(path).upper() for path in _listing(image, offset, "::/EFI/BOOT")}
    except ProvisioningError:
        return None
    return [loader for loader in FALLBACK_LOADERS if loader in names]


def copy_esp(image: str, offset: int, target: str) -> None:
    """Write the files of the partition at `offset` below the directory `target`.

    Raises:
        ProvisioningError: IMAGE_UNREADABLE if mtools is not there or cannot read it, or it is larger than any real one.

    """
    left = MAX_BYTES
    for path in _listing(image, offset, "-/", "::/"):
        parts = path.removeprefix("::/").split("/")
        if path.endswith("/") or any(part in ("", ".", "..") for part in parts):
            continue
        file = os.path.join(target, *parts)
        try:
            os.makedirs(os.path.dirname(file), exist_ok=True)
            with open(file, "xb") as stream:
                _run(image, offset, "mtype", f"::/{'/'.join(parts)}", output=stream, limit=left)
                left -= stream.tell()
        except OSError as error:  # names that no two files can have, or no room
            raise _unreadable(image, f"its EFI system partition: {path}: {error.strerror}") from error


def _listing(image: str, offset: int, *options: str) -> list[str]:
    with tempfile.TemporaryFile() as output:
        _run(image, offset, "mdir", "-b", *options, output=output, limit=MAX_LISTING)
        output.seek(0)
        lines = output.read().decode(errors="replace").splitlines()
    if len(lines) > MAX_FILES:
        raise _unreadable(image, f"its EFI system partition has more than {MAX_FILES} files")
    return lines


def _run(image: str, offset: int, tool: str, *options: str, output: IO[bytes], limit: int) -> None:
    """Have an mtools program write to a file, which is bounded; what it does not find is nothing."""
    program = find_tool(tool)
    if program is None:
        raise _unreadable(image, "mtools is not installed, which reads the EFI system partition")
    # mtools takes what follows the last @@ for an offset.
    argv = [program, "-i", f"{image}@@{offset}", *options]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=_ENVIRONMENT)
        with process:
            # The kernel ends what writes more.
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
            try:
                status = process.wait(ESP_LIMIT)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise _unreadable(image, f"{tool}: no answer after {ESP_LIMIT:g} s") from error
        output.seek(0, os.SEEK_END)
        errors.seek(0)
        words = errors.read(MAX_LISTING).decode(errors="replace").strip()
    if status and "not found" not in words:
        if status == -signal.SIGXFSZ:
            words = f"more than {limit} bytes"
        raise _unreadable(image, f"{tool}: {words.splitlines()[-1][:200] if words else 'it failed'}")


def _unreadable(image: str, detail: str) -> ProvisioningError:
    return ProvisioningError(Reason.IMAGE_UNREADABLE, image=image, detail=detail, hint="install mtools")
