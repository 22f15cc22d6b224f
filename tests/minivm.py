"""Run a Python program under a kernel of its own: a guest of Debian's cloud kernel, busybox and this Python.

The guest is an initramfs made from the host's own interpreter, the named tools and this project, so that the program
may import minprov and the tests. It boots in half a minute under software emulation. What the program writes to the
directory `/out` comes back as a dictionary. Needs qemu-system-x86, busybox-static, cpio, kmod and apt's sources.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROJECT = Path(__file__).parents[1]
OUTPUT_LIMIT = 64 << 20
TOO_LARGE = shutil.ignore_patterns(
    "test", "tests", "site-packages", "idlelib", "tkinter", "ensurepip", "config-*", "__pycache__"
)

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/project HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
modprobe -a virtio_pci virtio_blk {modules}
until [ -b /dev/vda ]; do sleep 0.1; done
mkdir -p /out
cd /project
{python} {program} >/out/log 2>&1
echo $? >/out/status
tail -n 50 /out/log
tar -c -f /dev/vda -C /out .
sync
poweroff -f
"""


class GuestError(Exception):
    """The program failed in the guest, or the guest did not come to its end."""


def run_in_guest(
    program: str,
    *,
    modules: Sequence[str],
    idle_modules: Sequence[str] = (),
    tools: Sequence[str] = (),
    devices: Sequence[str] = (),
    within: float = 600,
) -> dict[str, bytes]:
    """Run a program of this project in the guest and return what it left in `/out`, by name.

    The idle modules are there, and are not loaded unless the program does it.
    """
    with tempfile.TemporaryDirectory(prefix="minprov-vm-") as name:
        work = Path(name)
        kernel = _kernel_tree()
        initrd = _initramfs(work, kernel, program, modules, idle_modules, tools)
        output = work / "output"
        output.touch()
        os.truncate(output, OUTPUT_LIMIT)
        (vmlinuz,) = kernel.glob("boot/vmlinuz-*")
        argv = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "pc", "-cpu", "max,la57=off", "-m", "1024"]
        argv += ["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]
        argv += ["-kernel", str(vmlinuz), "-initrd", str(initrd), "-append", "console=ttyS0 quiet panic=-1"]
        argv += ["-drive", f"file={output},format=raw,if=virtio", *devices]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=within, check=False)
        console = done.stdout.decode(errors="replace")
        try:
            with tarfile.open(fileobj=io.BytesIO(output.read_bytes())) as archive:
                files = {
                    member.name.removeprefix("./"): file.read()
                    for member in archive
                    if (file := archive.extractfile(member))
                }
        except tarfile.TarError as error:
            raise GuestError(console) from error
    if files.pop("status", None) != b"0\n":
        raise GuestError(console)
    return files


def _kernel_tree() -> Path:
    """Return Debian's cloud kernel and its modules, unpacked; kept between runs."""
    depends = subprocess.run(
        ["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True, check=True
    )
    package = next(line.split()[-1] for line in depends.stdout.splitlines() if "Depends:" in line)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minprov"
    tree = cache / package
    if not tree.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            subprocess.run(["apt-get", "download", package], cwd=work, check=True, stdout=subprocess.DEVNULL)
            (archive,) = Path(work).glob("*.deb")
            subprocess.run(["dpkg-deb", "--extract", archive, f"{work}/tree"], check=True)
            (release,) = os.listdir(f"{work}/tree/lib/modules")
            subprocess.run(["depmod", "--basedir", f"{work}/tree", release], check=True)
            os.rename(f"{work}/tree", tree)
    return tree


def _initramfs(
    work: Path, kernel: Path, program: str, modules: Sequence[str], idle_modules: Sequence[str], tools: Sequence[str]
) -> Path:
    root = work / "root"
    for directory in ("bin", "dev", "proc", "sys", "tmp", "mnt", "out", "etc"):
        (root / directory).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")

    (release,) = os.listdir(kernel / "lib/modules")
    show = ["modprobe", "--dirname", str(kernel), "--set-version", release, "--show-depends", "--quiet"]
    for module in ("virtio_pci", "virtio_blk", *modules, *idle_modules):
        listed = subprocess.run([*show, module], capture_output=True, text=True, check=True).stdout
        _copy((Path(line.split()[1]) for line in listed.splitlines() if line.startswith("insmod")), root, kernel)
    _copy((kernel / "lib/modules" / release).glob("modules.*"), root, kernel)

    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, root / library.relative_to("/"), ignore=TOO_LARGE)
    binaries = [python, *(Path(path) for tool in tools if (path := shutil.which(tool)))]
    extensions = list((library / "lib-dynload").glob("*.so"))
    _copy({*binaries, *_shared_libraries([*binaries, *extensions])}, root, Path("/"))
    for tool in binaries[1:]:
        if not (root / "bin" / tool.name).exists():
            (root / "bin" / tool.name).symlink_to(tool)

    for tree in ("minprov", "tests"):
        shutil.copytree(PROJECT / tree, root / "project" / tree, ignore=shutil.ignore_patterns("__pycache__", "vm"))
    (root / "init").write_text(INIT.format(python=python, program=program, modules=" ".join(modules)))
    (root / "init").chmod(0o755)

    initrd = work / "initrd"
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    with initrd.open("wb") as file:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], input=names.encode(), cwd=root, stdout=file, check=True)
    return initrd


def _shared_libraries(binaries: Iterable[Path]) -> set[Path]:
    """Return what the dynamic linker would load for some binaries, the linker included."""
    listed = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    words = (word for line in listed.splitlines() for word in line.split() if not line.endswith(":"))
    return {Path(word) for word in words if word.startswith("/")}


def _copy(paths: Iterable[Path], root: Path, base: Path) -> None:
    for path in paths:
        target = root / path.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
