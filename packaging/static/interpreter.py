"""Build the Python of the static form against musl, from pinned sources and the patches that are here, and keep it.

    python interpreter.py MACHINE

Prints the directory that has it: `python`, its library in lib/, and what to link with. It is named by the hash of all
that it is made from, and made anew when that changes, in two minutes of processor time. For a MACHINE that is not this
one, such as `aarch64`, Debian's cross compiler builds it, and this machine's, which is built before, runs what the
build has to run.

Debian removes a source package when an update supersedes it, but keeps the upstream tarball, which alone is taken. When
a new upstream version supersedes that, too, the new names and hashes go into sources.toml, and `take_patches.py` takes
the patches from the new packages.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
# For every copy of the repository: a release is built in a clone.
KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "minprov/static-python")
PARTS = tomllib.loads((HERE / "sources.toml").read_text())
SOURCES = {name: part for name, part in PARTS.items() if "file" in part}
PATCHES = [HERE / "patches" / name for name in (HERE / "patches/series").read_text().split()]
# musl's specs know no headers but musl's: the kernel's are added. Python's configure takes Debian's name of the machine
# for glibc's, and there is no other way to keep it from asking.
COMPILER = """\
#!/bin/sh
[ "$1" != --print-multiarch ] || exit 0
exec {target}-gcc -idirafter "{work}/kernel" -ffile-prefix-map="{work}"=. "$@" -specs "{work}/libc/lib/musl-gcc.specs"
"""
# Threads get what glibc's have, and not musl's 128 KiB.
LINK_FLAGS = "-static -no-pie -Wl,-z,stack-size=8388608"
# What Python's configure cannot find out when it cannot run the programs that it builds, as it does when it can.
ANSWERS = {
    "ac_cv_aligned_required": "no",
    "ac_cv_broken_sem_getvalue": "no",
    "ac_cv_buggy_getaddrinfo": "no",
    "ac_cv_computed_gotos": "yes",
    "ac_cv_file__dev_ptc": "no",
    "ac_cv_file__dev_ptmx": "yes",
    "ac_cv_pthread_system_supported": "yes",
    "ac_cv_working_tzset": "yes",
}


def main(machine: str) -> None:
    """Print the directory, after it was made if it was not there."""
    print(ensure(machine))  # noqa: T201  # what it is for


def ensure(machine: str) -> Path:
    """Return the directory for a machine, after it was made if it was not there."""
    kept = KEPT / inputs_hash(machine)
    if not kept.exists():
        builder = None if machine == platform.machine() else ensure(platform.machine())
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            for name in SOURCES:
                unpack(fetch(name, work), work / name)
            for patch in PATCHES:
                run("patch", "--quiet", "--strip=1", "--input", patch, cwd=work / "python")
            build_compiler(work, machine)
            build_libraries(work, machine)
            build_python(work, machine, builder)
            keep(work, kept)
    return kept


def inputs_hash(machine: str) -> str:
    """Return a name for what is built: the hash of this directory's part in it and of the compiler's version."""
    parts = [Path(__file__), HERE / "sources.toml", HERE / "modules.setup", HERE / "patches/series", *PATCHES]
    parts.append(kernel_headers(machine)[0] / "version.h")
    compiler = run(f"{machine}-linux-gnu-gcc", "--version").encode()
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts) + compiler).hexdigest()[:16]


def kernel_headers(machine: str) -> list[Path]:
    """Return where the kernel's headers for a machine are, which a cross compiler has beside it."""
    if machine == platform.machine():
        return [Path("/usr/include", name) for name in ("linux", "asm-generic", f"{machine}-linux-gnu/asm")]
    return [Path(f"/usr/{machine}-linux-gnu/include", name) for name in ("linux", "asm-generic", "asm")]


def build_compiler(work: Path, machine: str) -> None:
    """Make a compiler for programs without glibc, and the C library that they get."""
    target = f"{machine}-linux-gnu"
    # musl's new allocator asks the kernel for memory six hundred times in a first boot, and gives as much back.
    options = ["--disable-shared", "--enable-wrapper=gcc", "--with-malloc=oldmalloc", "CFLAGS=-O2"]
    cross = [f"--target={target}", f"CROSS_COMPILE={target}-"]
    run("./configure", f"--prefix={work}/libc", *cross, *options, cwd=work / "musl")
    run("make", f"-j{os.cpu_count()}", "install", cwd=work / "musl")
    (work / "kernel").mkdir()
    for headers in kernel_headers(machine):
        (work / "kernel" / headers.name).symlink_to(headers)
    compiler = work / "cc"
    compiler.write_text(COMPILER.format(work=work, target=target))
    compiler.chmod(0o755)


def fetch(name: str, work: Path) -> Path:
    """Download a source from where this machine has its packages from."""
    source = SOURCES[name]
    target = "deb-src $(SITE) $(RELEASE) $(COMPONENT)"
    index = run("apt-get", "indextargets", "--format", target, "Identifier: Packages", "Component: main")
    (work / "sources.list").write_text("".join(sorted(set(index.splitlines(keepends=True)))))
    (work / "lists/partial").mkdir(parents=True, exist_ok=True)
    options = {
        "APT::Sandbox::User": run("id", "--user", "--name").strip(),
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work,
    }
    apt = ["apt-get", "-qq", *(f"--option={key}={value}" for key, value in options.items())]
    if not list((work / "lists").glob("*Sources*")):
        run(*apt, "update")
    run(*apt, "source", "--download-only", "--tar-only", source["package"], cwd=work)
    path: Path = work / source["file"]
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != source["sha256"]:
        sys.exit(f"{source['file']} is not what the archive has now: {Path(__file__).name} says how to move to that")
    return path


def unpack(tarball: Path, directory: Path) -> None:
    """Unpack what a tarball has in its only directory."""
    directory.mkdir()
    run("tar", "--extract", "--file", tarball, "--directory", directory, "--strip-components=1")


def build_libraries(work: Path, machine: str) -> None:
    """Build the libraries that modules are linked to; everything they have goes to `prefix`."""
    prefix = work / "prefix"
    compiler = {"CC": str(work / "cc"), "CFLAGS": "-O2", "CHOST": f"{machine}-linux-gnu"}
    run("./configure", "--static", f"--prefix={prefix}", cwd=work / "zlib", **compiler)
    run("make", "libz.a", "install", cwd=work / "zlib")
    static = ["--disable-shared", "--enable-static", "--disable-docs", "--disable-multi-os-directory"]
    run("./configure", *static, f"--host={machine}-linux-gnu", f"--prefix={prefix}", cwd=work / "libffi", **compiler)
    run("make", "install", cwd=work / "libffi")


def build_python(work: Path, machine: str, builder: Path | None) -> None:
    """Build Python with the modules of modules.setup in it and no others; `builder` has one that runs here."""
    (work / "build/Modules").mkdir(parents=True)
    shutil.copyfile(HERE / "modules.setup", work / "build/Modules/Setup.local")
    flags = ["--without-doc-strings", "--disable-test-modules", "--with-ensurepip=no"]
    variables = [
        f"CC={work}/cc",
        f"CFLAGS=-I{work}/prefix/include",
        "OPT=-DNDEBUG -O3 -fno-pie -Wall",
        f"LDFLAGS={LINK_FLAGS} -L{work}/prefix/lib",
        "LINKFORSHARED= ",
    ]
    if builder:
        flags += [f"--build={platform.machine()}-linux-gnu", f"--host={machine}-linux-gnu"]
        flags.append(f"--with-build-python={builder}/python")
        variables += [f"{name}={value}" for name, value in ANSWERS.items()]
    run("../python/configure", *flags, *variables, cwd=work / "build")
    run("make", f"-j{os.cpu_count()}", "python", cwd=work / "build", SOURCE_DATE_EPOCH="0")


def keep(work: Path, kept: Path) -> None:
    """Move what is needed of it to where it is kept."""
    parts = {
        "cc": "cc", "kernel": "kernel", "libc": "libc", "build/python": "python", "python/Lib": "lib/python3.11",
        "python/Include": "include", "build/pyconfig.h": "include/pyconfig.h",
        "build/libpython3.11.a": "libpython3.11.a", "prefix/lib/libz.a": "libz.a", "prefix/lib/libffi.a": "libffi.a",
        "musl/COPYRIGHT": "licenses/musl", "python/Modules/expat/COPYING": "licenses/expat",
        **{f"{name}/LICENSE": f"licenses/{name}" for name in ("python", "zlib", "libffi")},
    }  # fmt: skip
    unfinished = kept.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for source, target in parts.items():
        (unfinished / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(work / source, unfinished / target)
    (unfinished / "link-flags").write_text(LINK_FLAGS)
    (unfinished / "lib/python3.11/lib-dynload").mkdir()  # Python looks for it
    shutil.rmtree(unfinished / "lib/python3.11/test")
    for file in ("cc", "libc/lib/musl-gcc.specs"):
        (unfinished / file).write_text((unfinished / file).read_text().replace(str(work), str(kept)))
    unfinished.rename(kept)


def run(*argv: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Run a command and return what it prints; what it says besides is shown if it fails."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, env=os.environ | environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, argv))}: status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
