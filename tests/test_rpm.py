"""The RPMs, installed by rpm on a copy of this machine: what they hold, what their scriptlets do, what they leave.

`make test-packages` builds them and runs this, as root. The machine is Debian: what is a distribution's own (where its
Python finds modules) is put in place, and dependencies, which rpm does not find here, are compared as text.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from minprov import __version__
from tests.test_packages import ROOT, on_a_machine, run

DIST = ROOT / "dist"
MODULES = "/usr/share/minprov/modules"
PARTS = ("minprov", "minprov-duties", "minprov-tools")
STATIC, SELINUX, INITRAMFS = "minprov-static", "minprov-selinux", "minprov-initramfs"
ALL = (*PARTS, STATIC, SELINUX, INITRAMFS)
# Debian's rpm has its database in root's home unless told otherwise.
RPM = "rpm --dbpath /var/lib/rpm --nodeps"
SITE_PACKAGES = 'ln -s ../python3/dist-packages "$(echo /usr/lib/python3.*)/site-packages"'

pytestmark = [pytest.mark.packages, pytest.mark.root, pytest.mark.timeout(300)]


def package(name: str) -> Path:
    (path,) = DIST.glob(f"{name}-{__version__}-1.*.rpm")
    return path


def query(*arguments: str | Path) -> list[str]:
    return run("rpm", "--query", "--package", *arguments).stdout.splitlines()


def test_rpmlint_finds_nothing_to_say() -> None:
    checked = run("rpmlint", "--config", ROOT / "packaging/rpm/rpmlint.toml", *map(package, ALL)).stdout
    assert f"{len(ALL)} packages and 0 specfiles checked; 0 errors, 0 warnings" in checked


@pytest.mark.parametrize("name", ALL)
def test_no_name_of_a_macro_is_left(name: str) -> None:
    shown = query("--scripts", "--triggers", "--filetriggers", "--requires", "--list", "--info", package(name))
    shell = re.compile(r"\$\{\w+%[^}]*\}")
    assert [line for line in shown if "%" in shell.sub("", line)] == []


def of_debian(name: str) -> set[str]:
    """Return the files of a Debian package, by what their places are in an RPM."""
    (archive,) = DIST.glob(f"{name}_{__version__}_all.deb")
    listed = run("dpkg-deb", "--contents", archive).stdout
    paths = {line.split(maxsplit=5)[5].removeprefix(".") for line in listed.splitlines()}
    moved = {re.sub(r"^/lib/systemd/", "/usr/lib/systemd/", path) for path in paths if not path.endswith("/")}
    moved = {path.replace("/usr/lib/python3/dist-packages", MODULES) for path in moved}
    moved = {path.replace("/usr/share/zsh/vendor-completions", "/usr/share/zsh/site-functions") for path in moved}
    return {path for path in moved if not re.match(r"/etc/init\.d/|/usr/share/(doc|lintian)/", path)}


@pytest.mark.parametrize("name", PARTS)
def test_package_has_what_debians_has(name: str) -> None:
    own = r"/usr/share/(doc|licenses)/|/usr/lib/systemd/system-preset/|/etc/udev/"
    listed = query("--queryformat", r"[%{FILEMODES:perms} %{FILENAMES}\n]", package(name))
    files = {line.partition(" ")[2] for line in listed if not line.startswith("d")}
    assert {path for path in files if not re.match(own, path)} == of_debian(name)


def test_initramfs_package_has_debians_module_for_dracut(tmp_path: Path) -> None:
    run("rpm", "--root", tmp_path, "--nodeps", "--noscripts", "--notriggers", "--install", package(INITRAMFS))
    module = tmp_path / "usr/lib/dracut/modules.d/50minprov"
    assert {f"/{path.relative_to(tmp_path)}" for path in module.iterdir()} == {
        path for path in of_debian(INITRAMFS) if path.startswith("/usr/lib/dracut/")
    }
    assert stat.S_IMODE((module / "module-setup.sh").stat().st_mode) == 0o755
    assert set(query("--requires", package(INITRAMFS))) >= {"dracut", "openssh", "sudo", "(shadow-utils or shadow)"}


def test_static_package_has_its_program_and_what_is_beside_the_modules() -> None:
    others = set().union(*(query("--list", package(name)) for name in PARTS[:2]))
    beside = {path for path in others if not path.startswith((MODULES, "/usr/share/doc", "/usr/share/licenses"))}
    listed = query("--list", package(STATIC))
    assert {path for path in listed if not path.startswith(("/usr/share/doc", "/usr/share/licenses"))} == beside


@pytest.mark.parametrize("names", [PARTS, (STATIC,)])
def test_all_files_are_roots(names: tuple[str, ...], tmp_path: Path) -> None:
    run("rpm", "--root", tmp_path, "--nodeps", "--noscripts", "--notriggers", "--install", *map(package, names))
    for path in tmp_path.rglob("*"):
        status = path.lstat()
        relative = str(path.relative_to(tmp_path))
        if "rpmdb" in relative or ".rpm.lock" in relative:
            continue
        assert (status.st_uid, status.st_gid) == (0, 0), relative
        program = stat.S_ISDIR(status.st_mode) or relative == "usr/bin/minprov"
        assert stat.S_IMODE(status.st_mode) == (0o755 if program else 0o644), relative


def test_static_package_needs_no_python_and_takes_the_place_of_the_others() -> None:
    needed = query("--requires", package(STATIC))
    assert [line for line in needed if not line.startswith(("(", "rpmlib("))] == [
        "/bin/sh",
        "/bin/sh",
        "systemd",
        "systemd",
    ]
    assert {line.split()[0] for line in query("--provides", package(STATIC))} >= {"minprov", "minprov-duties"}
    assert set(query("--conflicts", package(STATIC))) == set(PARTS)


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


@pytest.mark.parametrize(
    ("name", "needed", "wanted"),
    [
        (
            "minprov",
            {"python3", "python3-aiofiles", "python3-aiohttp", "python3-defusedxml", "systemd"},
            {"policycoreutils", "python3-uvloop", "selinux-policy", "shadow", "shadow-utils"},
        ),
        ("minprov-duties", {"minprov", "systemd"}, {"btrfs-progs", "btrfsprogs", "e2fsprogs", "xfsprogs"}),
        ("minprov-initramfs", {"dracut", "openssh", "sudo"}, {"dracut-network", "shadow", "shadow-utils"}),
        ("minprov-selinux", {"policycoreutils"}, set()),
        ("minprov-tools", {"minprov"}, {"mtools", "python3-pycdlib", "qemu-img", "qemu-tools"}),
    ],
)
def test_bill_of_materials_names_what_a_package_needs_beside_it(name: str, needed: set[str], wanted: set[str]) -> None:
    text = (DIST / f"{package(name).stem}.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    scopes = {part["name"]: part["scope"] for part in json.loads(text)["components"]}
    assert scopes == dict.fromkeys(needed, "required") | dict.fromkeys(wanted, "optional")


def test_bill_of_the_static_package_names_what_is_in_its_program() -> None:
    bill = DIST / f"{package(STATIC).stem}.cdx.json"
    assert {"python", "aiohttp", "musl"} <= {part["name"] for part in json.loads(bill.read_text())["components"]}


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


@pytest.mark.parametrize("names", [PARTS, (STATIC,)])
def test_package_provisions_and_leaves_nothing_of_itself(names: tuple[str, ...]) -> None:
    changed = on_a_machine(f"""
        {SITE_PACKAGES}
        {RPM} --install {" ".join(map(str, map(package, names)))}
        mkfifo /run/emulator
        exec 3<>/run/emulator
        cd /
        PYTHONPATH={MODULES if names == PARTS else ROOT} /usr/bin/python3 -B -m minprov.emulator --real-addresses >&3 &
        read -r listening <&3
        gunzip <{ROOT}/minprov/emulator/data/sample-media.img.gz >/run/media
        minprov --media /run/media
        minprov status | grep --quiet 'Ready'
        getent passwd azureuser
        mkdir --parents /etc/udev/rules.d
        touch /etc/minprov/minprov.toml /etc/udev/rules.d/70-minprov-timeouts.rules
        test -z "$({RPM} --verify {" ".join(names)} | grep --invert-match ' g ')"
        for package in {" ".join(reversed(names))}; do
            minprov status
            {RPM} --erase $package
        done
        test ! -e /usr/share/minprov
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


def test_selinux_module_is_in_the_policy_as_long_as_its_package_is_installed() -> None:
    rule = "allow systemd_networkd_t initrc_t:dbus send_msg;"
    search = (
        "sesearch --allow --source systemd_networkd_t --target initrc_t --class dbus /etc/selinux/*/policy/policy.*"
    )
    on_a_machine(f"""
        ! {search} | grep '{rule}' || exit
        {RPM} --install {package(SELINUX)}
        {search} | grep '{rule}'
        {RPM} --erase {SELINUX}
        ! {search} | grep '{rule}' || exit
    """)
