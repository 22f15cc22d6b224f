"""The RPMs, installed by rpm on a copy of this machine: what they hold, what their scriptlets do, what they leave.

`make test-packages` builds them and runs this, as root. The machine is Debian: what is a distribution's own (where its
Python finds modules) is put in place, and dependencies, which rpm does not find here, are compared as text.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from minprov import __version__
from tests.test_packages import ROOT, on_a_machine, run

DIST = ROOT / "dist"
MODULES = "/usr/share/minprov/modules"
PARTS = ("minprov", "minprov-duties", "minprov-tools")
# Debian's rpm has its database in root's home unless told otherwise.
RPM = "rpm --dbpath /var/lib/rpm --nodeps"
SITE_PACKAGES = 'ln -s ../python3/dist-packages "$(echo /usr/lib/python3.*)/site-packages"'

pytestmark = [pytest.mark.packages, pytest.mark.root, pytest.mark.timeout(300)]


def package(name: str) -> Path:
    return DIST / f"{name}-{__version__}-1.noarch.rpm"


def query(*arguments: str | Path) -> list[str]:
    return run("rpm", "--query", "--package", *arguments).stdout.splitlines()


def test_rpmlint_finds_nothing_to_say() -> None:
    checked = run("rpmlint", "--config", ROOT / "packaging/rpm/rpmlint.toml", *map(package, PARTS)).stdout
    assert f"{len(PARTS)} packages and 0 specfiles checked; 0 errors, 0 warnings" in checked


@pytest.mark.parametrize("name", PARTS)
def test_no_name_of_a_macro_is_left(name: str) -> None:
    shown = query("--scripts", "--triggers", "--filetriggers", "--requires", "--list", "--info", package(name))
    shell = re.compile(r"\$\{\w+%[^}]*\}")
    assert [line for line in shown if "%" in shell.sub("", line)] == []


def test_each_package_has_its_modules_and_all_are_roots(tmp_path: Path) -> None:
    run("rpm", "--root", tmp_path, "--nodeps", "--noscripts", "--notriggers", "--install", *map(package, PARTS))
    for part, name in zip(("core", "duties", "tools"), PARTS, strict=True):
        listed = run("packaging/modules", part, cwd=ROOT).stdout.splitlines()
        assert set(query("--list", package(name))) >= {f"{MODULES}/{path}" for path in listed}
    for path in tmp_path.rglob("*"):
        status = path.lstat()
        relative = str(path.relative_to(tmp_path))
        if "rpmdb" in relative or ".rpm.lock" in relative:
            continue
        assert (status.st_uid, status.st_gid) == (0, 0), relative
        program = stat.S_ISDIR(status.st_mode) or relative == "usr/bin/minprov"
        assert stat.S_IMODE(status.st_mode) == (0o755 if program else 0o644), relative


def test_package_needs_what_fedora_and_suse_call_it() -> None:
    assert set(query("--requires", package("minprov"))) >= {
        "python3 >= 3.11",
        "python3-aiohttp >= 3.8.4",
        "python3-aiofiles",
        "python3-defusedxml",
        "(shadow-utils or shadow)",
        "(policycoreutils if selinux-policy)",
    }
    for name in PARTS[1:]:
        assert f"minprov = {__version__}-1" in query("--requires", package(name))


def test_units_run_at_the_next_boot_and_not_before() -> None:
    changed = on_a_machine(f"""
        {SITE_PACKAGES}
        {RPM} --install {package("minprov")} {package("minprov-duties")}
        test "$(systemctl is-enabled minprov-entropy.service)" = disabled
        test ! -e /var/lib/minprov
        minprov --version
        minprov resource-disk
        test ! -e /var/lib/minprov
    """)
    enabled = {path.rpartition("/")[2] for path in changed if path.startswith("./etc/systemd/system/")}
    assert enabled == {
        "minprov.service",
        "minprov-ready.target",
        "minprov-certificates.service",
        "minprov-follow-up.service",
        "minprov-resource-disk.service",
    }
    modules = [path for path in changed if re.fullmatch(rf"\.{MODULES}/.*\.py", path)]
    bytecode = [path for path in changed if re.fullmatch(rf"\.{MODULES}/.*\.pyc", path)]
    assert len(modules) == len(bytecode) > 40


def test_package_provisions_and_leaves_nothing_of_itself() -> None:
    changed = on_a_machine(f"""
        {SITE_PACKAGES}
        {RPM} --install {" ".join(map(str, map(package, PARTS)))}
        mkfifo /run/emulator
        exec 3<>/run/emulator
        PYTHONPATH={MODULES} /usr/bin/python3 -m minprov.emulator --real-addresses >&3 &
        read -r listening <&3
        gunzip <{MODULES}/minprov/emulator/data/sample-media.img.gz >/run/media
        minprov --media /run/media
        minprov status | grep --quiet 'Ready'
        getent passwd azureuser
        mkdir --parents /etc/udev/rules.d
        touch /etc/minprov/minprov.toml /etc/udev/rules.d/70-minprov-timeouts.rules
        test -z "$({RPM} --verify {" ".join(PARTS)} | grep --invert-match ' g ')"
        {RPM} --erase minprov-tools minprov-duties
        minprov status
        test ! -e {MODULES}/minprov/duties
        test ! -e {MODULES}/minprov/emulator
        {RPM} --erase minprov
    """)
    # The machine that it made, with its configuration and its state, and what the test and rpm need.
    machine = r"\./(home/azureuser|etc/(passwd|shadow|group|gshadow|subuid|subgid)-?|"
    machine += r"etc/(hostname|hosts|sudoers\.d|ssh|\.pwd\.lock|minprov/minprov\.toml)|"
    machine += r"usr/lib/python3\.\d+/site-packages|"
    machine += r"var/(lib/(rpm|minprov|systemd)|log|cache|mail|spool/mail|tmp))\b.*"
    assert [path for path in changed if not re.match(machine, path)] == []


def test_an_upgrade_keeps_what_the_administrator_enabled(tmp_path: Path) -> None:
    tree, built = tmp_path / "tree", tmp_path / "built"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".venv", "dist", "build", "__pycache__", ".*_cache"))
    version = tree / "minprov/__init__.py"
    version.write_text(version.read_text().replace(f'"{__version__}"', '"0.0.1"'))
    (tree / "minprov/commands/former.py").touch()
    subprocess.run(["packaging/build-rpm", built], cwd=tree, check=True, capture_output=True)
    on_a_machine(f"""
        {RPM} --install {built}/minprov-0.0.1-1.noarch.rpm {built}/minprov-duties-0.0.1-1.noarch.rpm
        test -e {MODULES}/minprov/commands/__pycache__/former.*.pyc
        systemctl disable minprov-follow-up.service
        {RPM} --upgrade {package("minprov")} {package("minprov-duties")}
        test "$(systemctl is-enabled minprov-follow-up.service)" = disabled
        systemctl is-enabled minprov.service minprov-resource-disk.service
        test "$(find {MODULES} -name '*.py' | wc -l)" = "$(find {MODULES} -name '*.pyc' | wc -l)"
        test ! -e {MODULES}/minprov/commands/__pycache__/former.*.pyc
    """)
