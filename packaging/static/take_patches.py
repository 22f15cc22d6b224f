"""Take the security patches for the static form's Python from Debian's source packages.

    packaging/static/take_patches.py python3.11_*.debian.tar.xz expat_*.debian.tar.xz

Debian removes a source package from its archive when the next update supersedes it; the upstream tarballs remain as
long as the release. So the patches are here, as Debian has them, without what concerns tests and documents, and each
says where it is from. Python has expat in its sources, of the same version as Debian's: it gets that one's patches.
"""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
from pathlib import Path

PATCHES = Path(__file__).parent / "patches"
# Up to it, Debian's own changes: where files are installed, how extensions are built.
FIRST_OF_PYTHON = "shutdown-deadlock.diff"
# What can be in the static form; of it, what is not.
KEPT = re.compile(r"(Include|Lib|Modules|Objects|Parser|Python)/|expat/lib/\S+\.[ch]$")
LEFT_OUT = re.compile(
    r"Lib/(distutils|lib2to3|test|venv|wsgiref)/|Lib/(ssl|webbrowser)\.py"
    r"|Modules/(_bz2module|_lzmamodule|_ssl|_testcapimodule)\.c"
)
FILE = re.compile(r"^(?=(?:diff --git|Index:) |--- \S+\n\+\+\+ )", re.MULTILINE)


def main(archives: list[str]) -> None:
    """Write the patches of every archive, and their order."""
    shutil.rmtree(PATCHES, ignore_errors=True)
    PATCHES.mkdir()
    series = []
    for path in map(Path, archives):
        with tarfile.open(path) as archive:
            names = _read(archive, "series").split()
            chosen = names[names.index(FIRST_OF_PYTHON) :] if FIRST_OF_PYTHON in names else names
            for name in chosen:
                if patch := without_what_is_left_out(_read(archive, name)):
                    kept = f"{path.name.partition('_')[0]}-{name}"
                    origin = f"Origin: {path.name}, debian/patches/{name}\n\n"
                    (PATCHES / kept).write_text(origin + patch, encoding="latin-1")
                    series.append(kept)
    (PATCHES / "series").write_text("".join(f"{name}\n" for name in series))


def without_what_is_left_out(patch: str) -> str:
    """Return a patch's description with the changes that concern the static form, or "" where there is none."""
    description, *changes = _joined(FILE.split(patch))
    paths = {change: _changed(change) for change in changes}
    kept = [change for change, path in paths.items() if KEPT.match(path) and not LEFT_OUT.match(path)]
    if not kept:
        return ""
    return description + "".join(kept).replace("/expat/lib/", "/Modules/expat/")


def _joined(pieces: list[str]) -> list[str]:
    """Put a header of git or quilt together with the change that follows it."""
    joined: list[str] = []
    for piece in pieces:
        if len(joined) > 1 and "\n+++ " not in joined[-1]:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def _changed(change: str) -> str:
    """Return the path of the file, without the first directory."""
    found = re.search(r"^\+\+\+ [^/\s]+/(\S+)", change, re.MULTILINE)
    return found[1] if found else ""


def _read(archive: tarfile.TarFile, name: str) -> str:
    stream = archive.extractfile(f"debian/patches/{name}")
    assert stream is not None  # noqa: S101  # as only a directory has none
    return stream.read().decode("latin-1")


if __name__ == "__main__":
    main(sys.argv[1:])
