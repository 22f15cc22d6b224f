"""Guest images made from Debian packages, kept between runs.

A recipe is data: packages, file trees laid over them, commands run in it. An image is made in four steps, each kept in
the cache under a digest of what went into it, so that a change to minprov costs seconds and not a bootstrap:

    kernel   Debian's cloud kernel, its modules, and a small initramfs          shared by all
    base     a bootstrap of the recipe's packages, as a tar archive            shared by recipes with the same packages
    package  minprov's own Debian package                                      shared by all
    disk     base + modules + trees + package + commands, as a raw ext4 disk   one for each recipe

mmdebstrap makes the bootstrap and ``mke2fs -d`` the disk: nothing is mounted and no loop device is used. Packages come
from the mirrors and the release that the host's own apt uses. Needs root; `MINPROV_CACHE` moves the cache.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.vm import arm64
from tests.vm.bootable import make_bootable_disk
from tests.vm.initramfs import make_initramfs
from tests.vm.recipes import Recipe
from tests.vm.tools import run

HERE = Path(__file__).parent
TREES = HERE / "trees"
PROJECT = HERE.parents[1]
EXAMPLES = PROJECT / "docs/examples"
FORMS = {
    "standalone": ("standalone", "/usr/bin/python3"),
    "static": ("static",),
    "static-aarch64": ("static", "aarch64"),
}
"""What build.py is told, for the forms that guests have."""
FORMED = ("minprov", "packaging", "units")
"""What the static and the standalone form are made from."""
# What the Debian package is made from.
PACKAGED = ("debian", "docs/examples/dracut", "docs/examples/initramfs-tools", "minprov", "packaging", "units")
DISK_SIZE = "2G"
DIGEST = 16
DISK = "disk.img"
KERNEL_PACKAGES = ("busybox-static", "linux-image-cloud-amd64")

# What the initramfs loads to reach the root disk; udev loads everything else, the optical drive's driver included.
INITRAMFS_MODULES = ("virtio_pci", "virtio_blk", "overlay")
# Some tools work on open files by way of /proc.
_IN_GUEST = """
mount -t proc proc "$1/proc"
exec chroot "$1" sh -euc "$2"
"""
_LOCKS: dict[Path, threading.Lock] = {}
_IN_USE: list[int] = []
"""Descriptors of the cached directories that this process works with, each with a shared lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What QEMU boots. The disk is a master copy: a boot works on a copy of it."""

    kernel: Path
    initrd: Path
    disk: Path


def ensure_image(recipe: Recipe) -> Image:
    """Return the image of a recipe, making whatever part of it the cache lacks."""
    kernel = _ensure("kernel", _kernel_inputs(), _make_kernel)
    package = ensure_package()
    base = _ensure_example(recipe.example, package) if recipe.example else ensure_base(recipe.packages)
    form = ensure_form(recipe.form) if recipe.form else None
    inputs = [
        *(kernel.name, base.parent.name, repr(recipe)),
        package.name if recipe.minprov or recipe.initramfs else "no minprov",
        form.name if form else "no form of its own",
    ]
    trees = [TREES / tree for tree in recipe.trees]
    disk = _ensure(
        f"disk-{recipe.name}",
        [
            *(text.encode() for text in inputs),
            *_file_contents(trees),
            *((PROJECT / source).read_bytes() for source, _ in recipe.files),
        ],
        lambda out: _make_disk(recipe, kernel, base, package, form, out),
    )
    initrd = disk / "initrd" if (disk / "initrd").exists() else kernel / "initrd"
    return Image(kernel=kernel / "vmlinuz", initrd=initrd, disk=disk / DISK)


def ensure_arm64_disk() -> Path:
    """Return the disk for arm64, which is of one kind."""
    form = ensure_form("static-aarch64")
    inputs = [form.name.encode(), (HERE / "arm64.py").read_bytes(), *_file_contents([TREES / "arm64"])]
    return _ensure("disk-arm64", inputs, lambda out: _make_arm64_disk(form, out)) / DISK


def ensure_base(packages: Iterable[str]) -> Path:
    """Return the archive of a system with these packages and what they depend on."""
    names = sorted(packages)
    return _ensure("base", ["\n".join(names).encode()], lambda out: _make_base(names, out)) / "base.tar"


def ensure_package() -> Path:
    """Return the directory with this project's Debian packages."""
    return _ensure("package", _file_contents(PROJECT / name for name in PACKAGED), _make_package)


def _ensure_example(name: str, package: Path) -> Path:
    made = _ensure(
        f"example-{name}",
        [package.name.encode(), *_file_contents([EXAMPLES / name])],
        lambda out: MAKE_EXAMPLE[name](next(package.glob("minprov_*.deb")), out / "base.tar"),
    )
    return made / "base.tar"


def ensure_form(form: str) -> Path:
    """Return the directory that has the tarball of a form, built from what is here."""
    return _ensure(form, _file_contents(PROJECT / name for name in FORMED), functools.partial(_make_form, form))


def cache_directory() -> Path:
    """Return where images are kept between runs."""
    if chosen := os.environ.get("MINPROV_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minprov"


def _ensure(kind: str, inputs: Iterable[bytes], make: Callable[[Path], None]) -> Path:
    """Return the cached directory of `kind` made from `inputs`; a missing one is made, in its predecessor's place."""
    digest = hashlib.sha256()
    for part in inputs:
        digest.update(hashlib.sha256(part).digest())
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    wanted = cache / f"{kind}-{digest.hexdigest()[:DIGEST]}"
    with _LOCKS.setdefault(wanted, threading.Lock()):  # one boot makes what others wait for
        while not _take_into_use(wanted):
            _replace(kind, wanted, make)
    return wanted


def _take_into_use(path: Path) -> bool:
    """Keep other checkouts from removing a cached directory while this process runs; False if there is none."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    fcntl.flock(directory, fcntl.LOCK_SH)
    _IN_USE.append(directory)
    return os.fstat(directory).st_nlink > 0  # else it was removed while the lock was waited for


def _replace(kind: str, wanted: Path, make: Callable[[Path], None]) -> None:
    cache = wanted.parent
    with _work_directory(cache) as work:
        made = work / "made"
        made.mkdir()
        make(made)
        for predecessor in cache.glob(f"{kind}-{'?' * DIGEST}") if kind != "base" else ():
            _remove_unused(predecessor)
        try:
            made.rename(wanted)
        except OSError:  # unless another checkout has made the same meanwhile
            if not wanted.is_dir():
                raise


def _remove_unused(path: Path) -> None:
    """Remove a cached directory, unless somebody works with it or removes it."""
    with suppress(FileNotFoundError, BlockingIOError):
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
        finally:
            os.close(directory)


@contextmanager
def _work_directory(parent: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="work-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _file_contents(roots: Iterable[Path]) -> Iterator[bytes]:
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{path.relative_to(root)} {path.stat().st_mode & 0o111:o}".encode() + path.read_bytes()


# --- kernel -----------------------------------------------------------------------------------------------------------


def _kernel_inputs() -> list[bytes]:
    return [repr((KERNEL_PACKAGES, INITRAMFS_MODULES)).encode(), (HERE / "initramfs-init").read_bytes()]


def _make_kernel(out: Path) -> None:
    with _work_directory(out.parent) as work:
        tree = work / "tree"
        _bootstrap(KERNEL_PACKAGES, tree, variant="extract")
        _make_initrd(tree, out / "initrd")
        (kernel,) = tree.glob("boot/vmlinuz-*")
        kernel.rename(out / "vmlinuz")
        (out / "lib").mkdir()
        (tree / "lib/modules").rename(out / "lib/modules")


def _make_initrd(tree: Path, initrd: Path) -> None:
    root = tree.with_name("initramfs")
    for directory in ("bin", "dev", "proc", "root"):
        (root / directory).mkdir(parents=True)
    shutil.copy(tree / "bin/busybox", root / "bin/busybox")
    shutil.copy(HERE / "initramfs-init", root / "init")
    make_initramfs(root, tree, INITRAMFS_MODULES, initrd)


# --- base and disk ----------------------------------------------------------------------------------------------------


def _make_base(packages: Iterable[str], out: Path) -> None:
    _bootstrap(packages, out / "base.tar", variant="minbase")


def _make_package(out: Path) -> None:
    run(PROJECT / "packaging/build-deb", out)


def _make_by_mmdebstrap(package: Path, archive: Path) -> None:
    run(EXAMPLES / "mmdebstrap/mmdebstrap.sh", package, archive)


def _make_by_mkosi(package: Path, archive: Path) -> None:
    # Its containers have to be told when there is no systemd to ask for a unit, and want a /run that is in memory.
    own_run = ("unshare", "--mount", "sh", "-euc", 'mount -t tmpfs none /run; exec "$@"', "sh")
    with _work_directory(archive.parent) as directory:
        shutil.copytree(EXAMPLES / "mkosi", directory, dirs_exist_ok=True)
        shutil.copy(package, directory / "mkosi.extra/minprov.deb")
        run(*own_run, "mkosi", f"--directory={directory}", "--nspawn-keep-unit", f"--output={archive}")


MAKE_EXAMPLE = {"mmdebstrap": _make_by_mmdebstrap, "mkosi": _make_by_mkosi}


def _make_form(form: str, out: Path) -> None:
    run(sys.executable, PROJECT / "packaging/appliance/build.py", "--output", out, *FORMS[form])


def _unpack_form(form: Path, root: Path) -> None:
    (root / "opt/minprov").mkdir(parents=True)
    tarball = next(form.glob("*.tar.gz"))
    run("tar", "--extract", "--file", tarball, "--directory", root / "opt/minprov", "--strip-components=1")


def _make_disk(recipe: Recipe, kernel: Path, base: Path, package: Path, form: Path | None, out: Path) -> None:
    with _work_directory(out.parent) as work:
        root = work / "root"
        root.mkdir()
        run("tar", "--extract", "--xattrs", "--xattrs-include=*", "--file", base, "--directory", root)
        _lay_over(kernel / "lib", root / "usr/lib")
        for tree in recipe.trees:
            _lay_over(TREES / tree, root)
        if recipe.minprov:
            _install(next(package.glob("minprov_*.deb")), root)
        if recipe.duties:
            _install(next(package.glob("minprov-duties_*.deb")), root)
        if recipe.tools:
            _install(next(package.glob("minprov-tools_*.deb")), root)
        if recipe.initramfs:
            _install(next(package.glob("minprov-initramfs_*.deb")), root)
        for source, target in recipe.files:
            (root / target.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / source, root / target.lstrip("/"))
        if form:
            _unpack_form(form, root)
        for command in recipe.commands:
            run("unshare", "--mount", "--", "sh", "-euc", _IN_GUEST, "sh", root, command)
        # As in an image made to be cloned: systemd generates an id at boot, and does not take this for a factory reset.
        (root / "etc/machine-id").write_text("")
        if recipe.bootloader:
            make_bootable_disk(root, out / DISK, size=DISK_SIZE)
        else:
            for initrd in root.glob("boot/initrd.img-*"):
                initrd.rename(out / "initrd")
            run("mke2fs", "-q", "-t", "ext4", "-d", root, out / DISK, DISK_SIZE)


def _make_arm64_disk(form: Path, out: Path) -> None:
    with _work_directory(out.parent) as work:
        packages, root = work / "packages", work / "root"
        _bootstrap(arm64.PACKAGES, packages, variant="extract", architecture="arm64")
        arm64.copy_system(packages, root)
        _lay_over(TREES / "arm64", root)
        shutil.copy(PROJECT / "units/rc.minprov", root / "etc/rc.minprov")
        _unpack_form(form, root)
        arm64.make_disk(packages, root, out / DISK)


def _install(package: Path, root: Path) -> None:
    """Install a package as a user would, which also tells whether its dependencies are what it needs."""
    shutil.copy(package, root / "tmp")
    run("chroot", root, "dpkg", "--install", f"/tmp/{package.name}")
    (root / "tmp" / package.name).unlink()


def _lay_over(tree: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    run("cp", "--recursive", "--no-target-directory", "--no-preserve=ownership", "--no-dereference", tree, target)


def _bootstrap(packages: Iterable[str], target: Path, *, variant: str, architecture: str = "amd64") -> None:
    sources = run(
        *("apt-get", "indextargets", "Created-By: Packages", "Origin: Debian"),
        *(
            "--format",
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(REPO_URI) $(RELEASE) $(COMPONENT)",
        ),
    )
    release = sources.split()[3]
    run(
        *("mmdebstrap", "--quiet", f"--variant={variant}", f"--include={','.join(packages)}"),
        f"--architectures={architecture}",
        *("--aptopt=APT::Install-Recommends false", "--dpkgopt=path-exclude=/usr/share/doc/*"),
        *("--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"),
        *(release, target, "-"),
        stdin=sources,
    )
