"""Build minprov for an image without packages: one directory, with or without a Python of its own, as a tarball.

    python build.py [--output DIRECTORY] bundle|standalone PYTHON ...
    python build.py [--output DIRECTORY] static [MACHINE]

The bundle runs with the image's Python, quickest with the versions that it was built for: those of each PYTHON. The
standalone form has PYTHON in it, which has to be a Debian package's. The static form has one program with everything
in it, its Python built by ../static/interpreter.py, for this machine or for MACHINE. One commit gives the same bytes
each time: dependencies are pinned with their hashes, and times are the commit's. Beside the tarball comes a bill of
materials.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from itertools import chain
from pathlib import Path

from sbom import Component, bill_of_materials, component_of_distribution, component_of_package, component_of_source

from minprov import __version__

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
STATIC = HERE.parent / "static"
# Every image has the C library; a program wants the one it was built with, or a newer one.
C_LIBRARY = re.compile(r"ld-linux.*|lib(c|m|dl|pthread|rt|util|resolv)\.so.*")
STANDALONE_LAUNCHER = """\
#!/bin/sh
program=$0
[ ! -L "$program" ] || program=$(readlink -f "$program")
exec "${program%/*}/bin/python3" -I -S "${program%/*}/minprov.py" "$@"
"""


def main() -> None:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("form", choices=["bundle", "standalone", "static"])
    parser.add_argument("targets", nargs="*", metavar="PYTHON|MACHINE")
    arguments = parser.parse_args()
    machine = arguments.targets[0] if arguments.form == "static" and arguments.targets else platform.machine()
    name = f"minprov-{__version__}-{arguments.form}-linux-{machine}"
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch, f"minprov-{__version__}")
        shutil.copytree(ROOT / "units", directory / "units")
        if arguments.form == "static":
            parts = build_program(directory / "minprov", machine)
        else:
            parts = build(directory, arguments.form, arguments.targets)
        write_licenses(directory / "licenses", parts)
        bill = bill_of_materials(subject(), parts)
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / f"{name}.cdx.json").write_text(json.dumps(bill, indent=2) + "\n")
        write_tarball(arguments.output / f"{name}.tar.gz", directory)


def build(directory: Path, form: str, pythons: list[str]) -> list[Component]:
    """Make the directory and return what it consists of, besides minprov."""
    library = directory / "lib"
    library.mkdir()
    shutil.copyfile(HERE / "launcher.py", directory / "minprov")
    (directory / "minprov").chmod(0o755)
    standalone = form == "standalone"
    flags = ["--standalone"] if standalone else []
    parts: dict[str, Component] = {}
    for python in pythons[:1] if standalone else pythons:
        with tempfile.TemporaryDirectory() as site:
            install(Path(site), python)
            # The order of a set that is a constant depends on the seed of hashes.
            run(python, "-B", HERE / "archive.py", site, library, *flags, PYTHONHASHSEED="0")
            for component in map(component_of_distribution, Path(site).glob("*.dist-info")):
                parts[component.purl] = component
    if standalone:
        executable = run(pythons[0], "-I", "-c", "import sys; print(sys.executable)").strip()
        for file in add_interpreter(directory, Path(executable).resolve()):
            component = component_of_package(file)
            parts[component.purl] = component
    for extension in library.rglob("*.so"):
        run("strip", "--strip-unneeded", extension)
    return [parts[purl] for purl in sorted(parts)]


def install(site: Path, python: str) -> None:
    """Install minprov and its pinned dependencies for a Python into an empty directory."""
    version = run(python, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    pinned = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version", version]
    run(*pip, *pinned, "--requirement", HERE / "requirements.txt", "--target", site)
    listed = [run(sys.executable, HERE.parent / "modules", part).splitlines() for part in ("core", "duties")]
    for file in chain(*listed):
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, site / file)


def add_interpreter(directory: Path, python: Path) -> set[Path]:
    """Add the Python, and the libraries that it and the extension modules are linked to; return where all was."""
    interpreter = directory / "bin/python3"
    interpreter.parent.mkdir()
    shutil.copyfile(python, interpreter)
    interpreter.chmod(0o755)
    origins = {python}
    for binary in (interpreter, *(directory / "lib").rglob("*.so")):
        for name, path in re.findall(r"(\S+) => (/\S+)", run("ldd", binary)):
            if not C_LIBRARY.fullmatch(name):
                shutil.copyfile(path, directory / "lib" / name)
                origins.add(Path(path).resolve())
    # In force for what is loaded later, too; LD_LIBRARY_PATH would be so in the system's own tools.
    run("patchelf", "--force-rpath", "--set-rpath", "$ORIGIN/../lib", interpreter)
    (directory / "minprov").rename(directory / "minprov.py")
    (directory / "minprov").write_text(STANDALONE_LAUNCHER)
    (directory / "minprov").chmod(0o755)
    return origins


def build_program(program: Path, machine: str) -> list[Component]:
    """Make the static program and return what it consists of."""
    interpreter = static_python(machine)
    python = static_python(platform.machine()) / "python"  # bytecode is the same everywhere
    with tempfile.TemporaryDirectory() as scratch:
        site, objects = Path(scratch, "site"), Path(scratch, "objects")
        objects.mkdir()
        install(site, python)
        for unusable in site.glob("uvloop*"):  # it is machine code, which a static program cannot load
            shutil.rmtree(unusable)
        settings = {"PYTHONHASHSEED": "0", "PYTHONNODEBUGRANGES": "1"}
        run(python, "-S", "-P", "-B", STATIC / "freeze.py", site, objects, **settings)
        own = [STATIC / f"{name}.c" for name in ("main", "libraries", "memory")]
        # Else it would have memcpy() call itself.
        optimized = ["-O2", "-fno-pie", "-fno-tree-loop-distribute-patterns"]
        libraries = [interpreter / f"lib{name}.a" for name in ("python3.11", "ffi", "z")]
        flags = [*(interpreter / "link-flags").read_text().split(), "-Wl,--wrap=PyMarshal_ReadObjectFromString"]
        include = f"-I{interpreter}/include"
        sources = [*own, "modules.c", "modules.S"]
        run(
            interpreter / "cc",
            *optimized,
            include,
            *sources,
            *libraries,
            "-lm",
            *flags,
            "-s",
            "-o",
            program,
            cwd=objects,
        )
        parts = list(map(component_of_distribution, site.glob("*.dist-info")))
    for name, source in tomllib.loads((STATIC / "sources.toml").read_text()).items():
        parts.append(component_of_source(name, source["version"], interpreter / "licenses" / name))
    compilers = run(interpreter / "cc", "-print-libgcc-file-name").strip()
    parts.append(component_of_package(Path(compilers).resolve()))
    return sorted(parts, key=lambda part: part.purl)


def static_python(machine: str) -> Path:
    """Return the directory of the static form's Python."""
    return Path(run(sys.executable, STATIC / "interpreter.py", machine).strip())


def subject() -> Component:
    """Return minprov itself."""
    return Component(
        kind="application",
        name="minprov",
        version=__version__,
        purl=f"pkg:pypi/minprov@{__version__}",
        license={"expression": "Apache-2.0"},
        license_text=(ROOT / "LICENSE").read_bytes(),
    )


def write_licenses(directory: Path, parts: list[Component]) -> None:
    """Write each component's license to a file of its own."""
    directory.mkdir()
    for component in (subject(), *parts):
        (directory / component.name).write_bytes(component.license_text)


def write_tarball(path: Path, directory: Path) -> None:
    """Write a tarball of the directory that depends on its contents and on the commit only."""
    time = int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "-C", ROOT, "log", "-1", "--format=%ct"))

    def of_the_commit(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = time
        member.mode = 0o755 if member.mode & 0o100 else 0o644
        return member

    with (
        open(path, "wb") as stream,
        gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tarball,
    ):
        tarball.add(directory, directory.name, filter=of_the_commit)  # in order of name


def run(*argv: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Run a command and return what it prints."""
    clean = {name: os.environ[name] for name in os.environ if not name.startswith("PYTHON")}
    environment = clean | {"LC_ALL": "C.UTF-8"} | environment
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, cwd=cwd, env=environment).stdout


if __name__ == "__main__":
    main()
