"""The static form for arm64, cross-built, run by QEMU's user emulation on this machine's kernel.

`make test-arm64` builds it and runs this, as root. The tools that it starts are this machine's own.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from minprov import __version__
from tests import test_packages
from tests.test_packages import ROOT, differing_files, in_small_machine, make_small_machine, provision, run, unpacked

DIST = ROOT / "dist"
FORM = "static-linux-aarch64"
EMULATOR = "/usr/bin/qemu-aarch64-static"
# Registers that arm64 has not, how well Python supports it, and headers of a library that is not used.
NO_MATTER = re.compile("HAVE_GCC_ASM_FOR_X|PY_SUPPORT_TIER|CURSES|TERM_H|WINDOW_HAS_FLAGS|MVWDELCH")

pytestmark = [pytest.mark.arm64, pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(DIST, "static", tmp_path_factory.mktemp("static"), "aarch64")


@pytest.fixture
def small_machine(directory: Path, tmp_path: Path) -> Path:
    shutil.copy(EMULATOR, tmp_path / "qemu")
    return make_small_machine(directory, tmp_path)


def test_program_is_for_arm64_and_linked_to_nothing(directory: Path) -> None:
    headers = run("readelf", "--file-header", "--program-headers", "--wide", directory / "minprov").stdout
    assert "AArch64" in headers
    assert "LOAD" in headers
    assert "INTERP" not in headers
    assert "DYNAMIC" not in headers
    assert (directory / "minprov").stat().st_size <= 14 << 20


def test_python_is_built_like_the_one_for_this_machine() -> None:
    """What configure cannot try out when it builds for another machine, it may guess wrong."""
    settings: list[set[str]] = []
    for machine in ("x86_64", "aarch64"):
        kept = Path(run(sys.executable, ROOT / "packaging/static/interpreter.py", machine).stdout.strip())
        lines = (kept / "include/pyconfig.h").read_text().splitlines()
        settings.append({line for line in lines if "define" in line or "undef" in line})
    assert {line for line in settings[0] ^ settings[1] if not NO_MATTER.search(line)} == set()


def test_program_provisions_a_tree(directory: Path, tmp_path: Path) -> None:
    done = provision([EMULATOR, directory / "minprov"], tmp_path)
    assert "Reported Ready" in done.stdout


def test_program_plans_where_there_is_nothing_else(small_machine: Path) -> None:
    assert run("chroot", small_machine, "/qemu", "/minprov", "--version").stdout == f"minprov {__version__}\n"
    assert "azureuser" in in_small_machine(small_machine, "--dry-run", program="/qemu /minprov")


def test_program_provisions_where_there_is_nothing_but_busybox(small_machine: Path) -> None:
    assert "Reported Ready" in in_small_machine(small_machine, program="/qemu /minprov")
    assert (small_machine / "etc/hostname").read_text() == "web-01\n"


def test_program_is_the_same_bytes_wherever_and_whenever_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "packaging/appliance/build.py", "static", "aarch64", "--output"]
    monkeypatch.setitem(test_packages.BUILDS, FORM, command)
    assert differing_files(FORM, DIST, tmp_path) == []


def test_bill_of_materials_names_the_compilers_library_for_arm64() -> None:
    bill = json.loads((DIST / f"minprov-{__version__}-{FORM}.cdx.json").read_text())
    assert {part["name"] for part in bill["components"]} >= {"python", "musl", "libgcc-12-dev-arm64-cross"}
