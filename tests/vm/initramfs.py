"""An initramfs from a tree, and from those of a kernel's modules that it loads."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.vm.tools import run


def make_initramfs(root: Path, kernel: Path, modules: Iterable[str], initramfs: Path) -> None:
    """Write what is in `root` as an initramfs, with modules of the kernel's package that is extracted in `kernel`."""
    (release,) = os.listdir(kernel / "lib/modules")
    run("depmod", "--basedir", kernel, release)
    needed = run("modprobe", "--dirname", kernel, "--set-version", release, "--show-depends", "--all", *modules)
    for line in needed.splitlines():
        kind, _, module = line.partition(" ")
        if kind == "insmod":
            relative = Path(module.strip()).relative_to(kernel)
            (root / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(kernel / relative, root / relative)
    run("depmod", "--basedir", root, release)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    with initramfs.open("wb") as archive:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, input=names.encode(), stdout=archive, check=True
        )
