"""The examples of docs: recipes get a tarball as `make static` makes it, as far as their tools are here."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from minprov import __version__

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs/examples"
SCRIPTS = [
    *EXAMPLES.glob("*/PKGBUILD"),
    *EXAMPLES.glob("*/APKBUILD"),
    *EXAMPLES.glob("dracut/*/*.sh"),
    *EXAMPLES.glob("initramfs-tools/hooks/*"),
    *EXAMPLES.glob("initramfs-tools/scripts/*/*"),
    *EXAMPLES.glob("mmdebstrap/*.sh"),
    *ROOT.glob("units/*.init"),
    *ROOT.glob("units/*.runit"),
]
# What whoever sources the script uses or sets, and failures that end the tool that does.
SOURCED = "SC1091,SC2034,SC2154,SC2164"
UNITS = {f"usr/lib/systemd/system/{name}" for name in ("minprov.service", "minprov-custom-data.service")} | {
    "usr/lib/systemd/system/minprov-ready.target"
}
NOBODY = 65534


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(tool), reason=f"needs {tool}")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Make the tarball, with a script in the program's place."""
    name = f"minprov-{__version__}"
    directory = tmp_path / "release" / name
    shutil.copytree(ROOT / "units", directory / "units")
    (directory / "licenses").mkdir()
    shutil.copy(ROOT / "LICENSE", directory / "licenses/minprov")
    (directory / "minprov").write_text("#!/bin/sh\n")
    (directory / "minprov").chmod(0o755)
    tarball = tmp_path / f"{name}-static-linux-x86_64.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(directory, name)
    return tarball


def files_in(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}


def run(*argv: str | Path, **options: object) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return str(done.stdout)


@pytest.mark.parametrize(
    "recipe",
    ["alpine/APKBUILD", "arch/PKGBUILD", "buildroot/minprov/minprov.mk", "nixos/minprov.nix"],
)
def test_recipe_is_for_this_version(recipe: str) -> None:
    assert re.search(rf'(pkgver=|VERSION = |version = "){re.escape(__version__)}\b', (EXAMPLES / recipe).read_text())


@needs("shellcheck")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_finds_no_fault(script: Path) -> None:
    shell = "bash" if script.name in ("PKGBUILD", "module-setup.sh") else "sh"
    run("shellcheck", f"--shell={shell}", "--severity=warning", f"--exclude={SOURCED}", script)


@needs("makepkg")
@needs("pacman")
@pytest.mark.skipif(os.geteuid() != 0, reason="pacman installs as root")
def test_arch_package_is_built_and_installed(release: Path, tmp_path: Path) -> None:
    work, tree = tmp_path / "arch", tmp_path / "tree"
    work.mkdir()
    for file in (EXAMPLES / "arch/PKGBUILD", release):
        shutil.copy(file, work)
    for path in (work, *work.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    # makepkg refuses root; pytest's directories are root's alone.
    as_nobody = ("unshare", "--mount", "sh", "-euc", 'mount --bind "$0" /mnt; cd /mnt; exec "$@"', work)
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    run(*as_nobody, *drop, "env", "HOME=/mnt", "PKGEXT=.pkg.tar", "makepkg", "--nodeps")
    (tree / "var/lib/pacman").mkdir(parents=True)
    (package,) = work.glob("*.pkg.tar")
    flags = ("--noconfirm", "--nodeps", "--nodeps", f"--root={tree}", f"--dbpath={tree}/var/lib/pacman")
    run("pacman", "--upgrade", *flags, package)
    assert files_in(tree) >= {"usr/bin/minprov", "usr/share/licenses/minprov/minprov", *UNITS}


def test_alpine_package_function_installs(release: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    script = 'CARCH=x86_64; . "$1"; cd "$2"; pkgdir=$3; package'
    run("sh", "-euc", script, "sh", EXAMPLES / "alpine/APKBUILD", tmp_path / f"release/minprov-{__version__}", tree)
    assert files_in(tree) == {"usr/bin/minprov", "etc/init.d/minprov", "usr/share/licenses/minprov/minprov"}
    assert release.name == run("sh", "-c", 'CARCH=x86_64; . "$0"; printf %s "$source"', EXAMPLES / "alpine/APKBUILD")


def test_yocto_recipe_installs_and_knows_the_license(release: Path, tmp_path: Path) -> None:
    recipe = (EXAMPLES / f"yocto/minprov_{__version__}.bb").read_text()
    (function,) = re.findall(r"^do_install\(\) (\{.*?^\})", recipe, re.MULTILINE | re.DOTALL)
    variables = {
        "S": str(tmp_path / f"release/minprov-{__version__}"),
        "D": str(tmp_path / "tree"),
        "bindir": "/usr/bin",
        "systemd_system_unitdir": "/usr/lib/systemd/system",
    }
    run("sh", "-euc", function, env=os.environ | variables)
    assert files_in(tmp_path / "tree") == {"usr/bin/minprov", *UNITS}
    assert hashlib.md5((ROOT / "LICENSE").read_bytes()).hexdigest() in recipe
    for name, value in {"BPN": "minprov", "PV": __version__, "TARGET_ARCH": "x86_64"}.items():
        recipe = recipe.replace(f"${{{name}}}", value)
    assert release.name in recipe


@needs("make")
@pytest.mark.parametrize(
    ("init", "installed"), [("SYSTEMD", UNITS), ("OPENRC", {"etc/init.d/minprov"})], ids=["systemd", "openrc"]
)
def test_buildroot_package_installs(init: str, installed: set[str], release: Path, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "buildroot/minprov/minprov.mk", tmp_path)  # a clone's path may have blanks
    makefile = f"""
        TARGET_DIR = {tmp_path}/tree
        INSTALL = install
        ARCH = x86_64
        include minprov.mk
        .PHONY: all
        all: @D = {tmp_path}/release/minprov-{__version__}
        all:
        \t$(MINPROV_INSTALL_TARGET_CMDS)
        \t$(MINPROV_INSTALL_INIT_{init})
        source:
        \t@echo $(MINPROV_SOURCE)
    """
    (tmp_path / "Makefile").write_text(makefile.replace("\n        ", "\n"))
    run("make", "--warn-undefined-variables", "-C", tmp_path, "all")
    assert files_in(tmp_path / "tree") == {"usr/bin/minprov", *installed}
    assert run("make", "--silent", "--no-print-directory", "-C", tmp_path, "source").strip() == release.name


@needs("nix-instantiate")
def test_nixos_module_is_evaluated(release: Path, tmp_path: Path) -> None:
    packages = ("openssh", "shadow", "sudo", "systemd")
    stand_ins = 'stdenv.mkDerivation = made: made; stdenv.hostPlatform.parsed.cpu.name = "x86_64"; '
    stand_ins += f"{' '.join(f'{name} = null;' for name in packages)}"
    # The phase's commands, and that there is nothing that the module asks of NixOS and does not exist here.
    expression = f"""
        let module = import "{EXAMPLES}/nixos/minprov.nix" {{
                lib.mkDefault = value: value; pkgs = {{ {stand_ins} }};
            }};
        in builtins.deepSeq (removeAttrs (builtins.head module.systemd.packages) [ "src" ])
            (baseNameOf (toString (builtins.head module.systemd.packages).src)
                + " " + builtins.head module.systemd.services.minprov.wantedBy)
    """
    environment = os.environ | {
        "HOME": str(tmp_path),
        "NIX_STATE_DIR": str(tmp_path),
        "NIX_STORE_DIR": f"{tmp_path}/store",
    }
    told = run("nix-instantiate", "--eval", "--strict", "--expr", expression, env=environment)
    assert told.strip() == f'"{release.name} multi-user.target"'


@needs("systemd-analyze")
def test_systemd_finds_no_fault_with_the_unit_of_the_initramfs(tmp_path: Path) -> None:
    for program in ("bin/mount", "bin/sh", "opt/minprov/minprov"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).touch(mode=0o755)
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    shutil.copy(EXAMPLES / "dracut/50minprov/minprov-initramfs.service", units)
    for name in ("initrd-root-fs", "shutdown", "sysinit"):
        (units / f"{name}.target").write_text("[Unit]\n")
    analyze = ("systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", "minprov-initramfs.service")
    done = subprocess.run(analyze, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
