"""Measure the forms that minprov is shipped in, side by side: process start to Ready, peak memory, size.

`make bench-forms` builds them first. They run in turn, so that a shared machine's drift meets each alike; all but the
static one with Debian's Python. The ratio is to the import of aiohttp alone, of the distribution's for the Debian
package and of the pinned one for the others. Needs root, and the packages of packaging/apt-packages.txt.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from bench.startup import RUNS, Measured, provision, run
from minprov import __version__
from minprov.emulator.platform import Emulator
from minprov.emulator.sample import sample_media

ROOT = Path(__file__).parent.parent
PYTHON = "/usr/bin/python3"
DIST_PACKAGES = "/usr/lib/python3/dist-packages"
IMPORT_CLIENT = ["-I", "-c", "import aiohttp"]


class Form(NamedTuple):
    """A way to ship minprov: what is started, the Python that imports aiohttp for comparison, what it takes on disk."""

    name: str
    command: str
    python: str
    content: str


def prepare(place: Path) -> list[Form]:
    """Install every form below a directory; the Debian package in this mount namespace as well."""
    _call(PYTHON, "-m", "venv", "--without-pip", f"{place}/wheel")
    python = f"{place}/wheel/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    _call(*pip, "--require-hashes", "--requirement", f"{ROOT}/packaging/appliance/requirements.txt")
    _call(*pip, "--no-deps", str(ROOT))
    for form in ("bundle", "standalone", "static"):
        tarball = ROOT / f"dist/minprov-{__version__}-{form}-linux-{platform.machine()}.tar.gz"
        (place / form).mkdir()
        _call("tar", "-xf", str(tarball), "-C", f"{place}/{form}", "--strip-components=1")
    (package,) = ROOT.glob(f"dist/minprov_{__version__}*_all.deb")
    _call("dpkg", "--extract", str(package), f"{place}/deb")
    _call(PYTHON, "-m", "compileall", "-q", f"{place}/deb")  # as its postinst does
    layers = f"lowerdir={place}/deb{DIST_PACKAGES}:{DIST_PACKAGES}"
    _call("mount", "-t", "overlay", "-o", layers, "none", DIST_PACKAGES)
    return [
        Form("wheel in a virtual environment", f"{place}/wheel/bin/minprov", python, f"{place}/wheel"),
        Form("Debian package", f"{place}/deb/usr/bin/minprov", PYTHON, f"{place}/deb"),
        Form("bundle", f"{place}/bundle/minprov", python, f"{place}/bundle"),
        Form("standalone", f"{place}/standalone/minprov", python, f"{place}/standalone"),
        Form("static", f"{place}/static/minprov", python, f"{place}/static"),
    ]


def measure(forms: list[Form], platform: Emulator, media: Path) -> None:
    """Run everything in turn, once to warm up, and print a table."""
    runs: dict[str, list[Measured]] = {}
    for _ in range(RUNS + 1):
        for python in {form.python for form in forms}:
            runs.setdefault(python, []).append(run([python, *IMPORT_CLIENT]))
        for form in forms:
            runs.setdefault(form.name, []).append(provision(platform, media, [form.command]))
    print("| form | start to Ready | `import aiohttp` | ratio | peak memory | size |")
    print("|---|---|---|---|---|---|")
    for form in forms:
        mine, yardstick = runs[form.name][1:], runs[form.python][1:]
        ratio = statistics.median(a["ms"] / b["ms"] for a, b in zip(mine, yardstick, strict=True))
        memory = max(measured["memory"] for measured in mine)
        times = [f"{statistics.median(measured['ms'] for measured in each):.0f} ms" for each in (mine, yardstick)]
        cells = [form.name, *times, f"{ratio:.2f}", f"{memory:.0f} MiB", _size(form.content)]
        print(f"| {' | '.join(cells)} |")


async def main() -> None:
    """Measure, in a mount namespace that is this process's own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        forms = prepare(Path(place))
        with sample_media() as media:
            async with Emulator() as platform:
                await asyncio.to_thread(measure, forms, platform, media)
        _call("umount", DIST_PACKAGES)


def _call(*argv: str) -> None:
    subprocess.run(argv, check=True)


def _size(directory: str) -> str:
    files = [path for path in Path(directory).rglob("*") if path.is_file() and not path.is_symlink()]
    return f"{sum(path.stat().st_size for path in files) / 2**20:.1f} MiB"


if __name__ == "__main__":
    if "--inside" not in sys.argv:
        os.execvp("unshare", ["unshare", "--mount", sys.executable, "-m", "bench.forms", "--inside"])
    asyncio.run(main())
