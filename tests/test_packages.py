"""What is shipped, used as an image builder would: the Debian packages, the bundle, the standalone and the static form.

`make test-packages` builds them and runs this, as root. Everything is built once more here, and compared.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from bench.startup import make_tree
from minprov import __version__
from minprov.emulator.sample import emulated_platform

ROOT = Path(__file__).parent.parent
APPLIANCE = ROOT / "packaging/appliance"
SYSTEM_PYTHON = "/usr/bin/python3"
PYTHONS = os.environ.get("APPLIANCE_PYTHONS", SYSTEM_PYTHON).split()
BUSYBOX = "/var/cache/minprov-tests/busybox-accounts"  # tests/make-busybox
BUILDS = {
    "deb": ["packaging/build-deb"],
    "rpm": ["packaging/build-rpm"],
    "rpm-static": ["packaging/build-rpm"],
    "bundle": [sys.executable, "packaging/appliance/build.py", "bundle", *PYTHONS, "--output"],
    "standalone": [sys.executable, "packaging/appliance/build.py", "standalone", *PYTHONS, "--output"],
    "static": [sys.executable, "packaging/appliance/build.py", "static", "--output"],
}
# The tree as an overlay in which anything may be changed, with the platform's addresses on loopback. Prints what the
# script leaves behind, a line for each file.
MACHINE = """
set -e
work=$(mktemp -d)
mount -t tmpfs none "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay none -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
for place in dev sys tmp; do mount --rbind "/$place" "$work/root/$place"; done
mount -t proc none "$work/root/proc"
mount -t tmpfs none "$work/root/run"
ip link set lo up
ip address add 168.63.129.16/32 dev lo
ip address add 169.254.169.254/32 dev lo
chroot "$work/root" sh -euc "$0" >&2
cd "$work/upper"
find . -type f -o -type c -o -type l
"""

pytestmark = [pytest.mark.packages, pytest.mark.root, pytest.mark.timeout(300)]


def run(
    *argv: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | (env or {})
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def on_a_machine(script: str) -> list[str]:
    """Run a script on a copy of this machine and return the paths of what it changed."""
    namespaces = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--propagation", "private"]
    return run("unshare", *namespaces, "sh", "-c", MACHINE, script).stdout.splitlines()


def build(form: str, tree: Path, output: Path) -> None:
    contents = (ROOT / "dist").glob(f"*-static-*-{platform.machine()}.tar.gz") if form == "rpm-static" else ()
    subprocess.run([*BUILDS[form], output, *contents], cwd=tree, check=True, capture_output=True)


@pytest.fixture(scope="session")
def dist() -> Path:
    """What `make test-packages` has built."""
    return ROOT / "dist"


def unpacked(dist: Path, form: str, place: Path, machine: str = platform.machine()) -> Path:
    (tarball,) = dist.glob(f"*{form}*-{machine}.tar.gz")
    run("tar", "--extract", "--file", tarball, "--directory", place)
    return place / f"minprov-{__version__}"


@pytest.fixture(scope="session")
def bundle(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(dist, "bundle", tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def standalone(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(dist, "standalone", tmp_path_factory.mktemp("standalone"))


@pytest.fixture(scope="session")
def static(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(dist, "static", tmp_path_factory.mktemp("static"))


# -- every form --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", BUILDS)
def test_a_commit_is_the_same_bytes_wherever_and_whenever_it_is_built(form: str, dist: Path, tmp_path: Path) -> None:
    assert differing_files(form, dist, tmp_path) == []


def differing_files(form: str, dist: Path, tmp_path: Path) -> list[str]:
    """Build a form again, elsewhere, and return the names of the files that are not the same as in `dist`."""
    tree = tmp_path / "elsewhere"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".venv", "dist", "build", "__pycache__", ".*_cache"))
    for path in tree.rglob("*.py"):
        os.utime(path, (0, 0))
    again = tmp_path / "again"
    previous = os.umask(0o077)
    try:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"}.items():
                environment.setenv(name, value)
            build(form, tree, again)
    finally:
        os.umask(previous)
    built = {path.name for path in again.iterdir() if path.suffix not in {".buildinfo", ".changes"}}
    assert built
    return [name for name in sorted(built) if (again / name).read_bytes() != (dist / name).read_bytes()]


def test_sums_are_those_of_what_was_built(dist: Path) -> None:
    checked = run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=dist).stdout
    assert {line.partition(":")[0] for line in checked.splitlines()} == {path.name for path in dist.iterdir()} - {
        "SHA256SUMS"
    }


# -- the Debian packages -----------------------------------------------------------------------------------------------


def test_lintian_finds_nothing_to_say(dist: Path) -> None:
    (changes,) = dist.glob("*.changes")
    assert run("lintian", "--allow-root", "--fail-on=error,warning,info", "--display-info", changes).stdout == ""


def test_installed_package_runs_at_the_next_boot_and_not_before(dist: Path) -> None:
    changed = on_a_machine(f"""
        dpkg --install {dist}/minprov_*.deb
        systemctl is-enabled minprov.service
        test ! -e /var/lib/minprov
        minprov --version
    """)
    assert "./etc/systemd/system/multi-user.target.wants/minprov.service" in changed
    modules = [path for path in changed if re.fullmatch(r"\./usr/lib/python3/dist-packages/minprov/.*\.py", path)]
    bytecode = [path for path in changed if path.endswith(".pyc") and "/minprov/" in path]
    assert len(modules) == len(bytecode) > 40
    share = "./usr/share"
    assert set(changed) >= {
        f"{share}/man/man8/minprov.8.gz",
        f"{share}/bash-completion/completions/minprov",
        f"{share}/fish/vendor_completions.d/minprov.fish",
        f"{share}/zsh/vendor-completions/_minprov",
    }


def test_package_provisions_and_purging_it_leaves_nothing_of_it(dist: Path) -> None:
    changed = on_a_machine(f"""
        dpkg --install {dist}/*.deb
        mkfifo /run/emulator
        exec 3<>/run/emulator
        /usr/bin/python3 -m minprov.emulator --real-addresses >&3 &
        read -r listening <&3
        gunzip </usr/lib/python3/dist-packages/minprov/emulator/data/sample-media.img.gz >/run/media
        minprov --media /run/media
        minprov status | grep --quiet 'Ready'
        getent passwd azureuser
        mkdir /etc/minprov
        touch /etc/minprov/minprov.toml
        dpkg --purge minprov minprov-duties minprov-initramfs minprov-tools
    """)
    # Of the machine it made, and what dpkg keeps of every package.
    machine = r"\./(home/azureuser|etc/(passwd|shadow|group|gshadow|subuid|subgid)-?|"
    machine += r"etc/(hostname|hosts|sudoers\.d|ssh|\.pwd\.lock)|"
    machine += r"var/(lib/(dpkg|apt|systemd)|log|cache|mail|spool/mail|tmp))\b.*"
    assert [path for path in changed if not re.match(machine, path)] == []


def test_installing_starts_the_program_under_no_init(dist: Path) -> None:
    (package,) = dist.glob("minprov_*.deb")
    script = subprocess.run(
        ["dpkg-deb", "--info", package, "postinst"], check=True, capture_output=True, text=True
    ).stdout
    assert "update-rc.d minprov defaults" in script
    assert not re.search(r"(invoke-rc\.d|deb-systemd-invoke)\b.* start", script)


def test_without_the_tools_what_needs_them_says_so(dist: Path) -> None:
    on_a_machine(f"""
        dpkg --install {dist}/minprov_*.deb
        minprov --dry-run --emulated 2>&1 | grep --quiet 'this installation has no emulator'
        minprov vhd image out 2>&1 | grep --quiet '`minprov vhd` is not part of this installation'
        ! minprov --help | grep --quiet vhd
    """)


def test_duties_come_with_their_package_and_are_off(dist: Path) -> None:
    changed = on_a_machine(f"""
        dpkg --install {dist}/minprov_*.deb
        minprov resource-disk 2>&1 | grep --quiet 'install the package minprov-duties'
        dpkg --install {dist}/minprov-duties_*.deb
        systemctl is-enabled minprov-resource-disk.service
        minprov resource-disk
        test ! -e /var/lib/minprov
    """)
    assert "./etc/systemd/system/multi-user.target.wants/minprov-resource-disk.service" in changed


def test_tools_come_with_their_package(dist: Path) -> None:
    on_a_machine(f"""
        dpkg --install {dist}/*.deb
        truncate --size=30M /run/image
        minprov vhd /run/image /run/out.vhd | grep --quiet 'a fixed VHD of 31457280 bytes'
        minprov --help | grep --quiet vhd
    """)


def test_tools_take_the_place_of_the_emulator_package(dist: Path) -> None:
    on_a_machine(f"""
        mkdir --parents /run/old/DEBIAN /run/old/usr/lib/python3/dist-packages/minprov/emulator
        printf '%s\\n' 'Package: minprov-emulator' 'Version: 0.1.0' 'Architecture: all' 'Maintainer: m' \
            'Description: d' >/run/old/DEBIAN/control
        touch /run/old/usr/lib/python3/dist-packages/minprov/emulator/__init__.py
        dpkg-deb --build /run/old /run/old.deb
        dpkg --install /run/old.deb
        dpkg --install --auto-deconfigure {dist}/*.deb
        /usr/bin/python3 -m minprov.emulator --help | grep --quiet usage
    """)


def test_no_appliance_has_the_tools(directory: Path) -> None:
    tools = re.compile(rb"minprov/(emulator/|image/vhd|commands/(vhd|check))")  # bytecode names its file
    contents = [path for path in directory.rglob("*") if path.is_file()]
    assert contents
    assert [path for path in contents if tools.search(bytes(path) + path.read_bytes())] == []


# -- bundle, standalone and static form --------------------------------------------------------------------------------


@pytest.fixture(params=["bundle", "standalone", "static"])
def directory(request: pytest.FixtureRequest) -> Path:
    place: Path = request.getfixturevalue(request.param)
    return place


def provision(command: Sequence[str | Path], tree: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Provision a tree as an unpacked image has it, from the emulated platform."""
    make_tree(str(tree))

    async def main() -> subprocess.CompletedProcess[str]:
        async with emulated_platform() as platform:
            urls = ["--imds-url", platform.imds_url, "--wireserver-url", platform.wireserver_url]
            arguments = ["--root", str(tree), "--media", platform.media, "--timeout", "60", *urls, *flags]
            return await asyncio.to_thread(run, *command, *arguments)

    return asyncio.run(main())


def files(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_directory_provisions_and_writes_nothing_beside_itself(directory: Path, loop: str, tmp_path: Path) -> None:
    if loop == "uvloop" and not (directory / "lib").exists():
        pytest.skip("a static program cannot load uvloop")
    before = files(directory)
    done = provision([directory / "minprov"], tmp_path, "--loop", loop)
    assert "Reported Ready" in done.stdout
    assert "uvloop is not installed" not in done.stderr
    assert files(directory) == before


def test_directory_runs_from_anywhere_with_no_modules_but_its_own(directory: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved here"
    shutil.copytree(directory, moved)
    (tmp_path / "link").symlink_to(moved / "minprov")
    for name in ("aiohttp", "minprov", "socket", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module from elsewhere')\n")
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "os.py")}
    done = run(tmp_path / "link", "--help", cwd=tmp_path, env=environment)
    assert done.stdout.startswith("usage: minprov")


@pytest.mark.parametrize("python", PYTHONS)
def test_bundle_provisions_with_each_python_that_it_was_built_for(python: str, bundle: Path, tmp_path: Path) -> None:
    done = provision([python, "-I", "-S", bundle / "minprov"], tmp_path, "--loop", "uvloop")
    assert "Reported Ready" in done.stdout
    assert "uvloop is not installed" not in done.stderr


def test_bundle_provisions_with_a_python_that_it_was_not_built_for(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    for built in ("*.modules", "*.so"):
        for path in (tmp_path / "bundle/lib").rglob(built):
            path.unlink()
    done = provision([tmp_path / "bundle/minprov"], tmp_path / "root")
    assert "Reported Ready" in done.stdout


def test_standalone_form_needs_no_more_than_the_c_library_and_a_shell(standalone: Path, tmp_path: Path) -> None:
    linked = run("ldd", SYSTEM_PYTHON).stdout
    for binary in ("/bin/busybox", *re.findall(r"(/\S+/(?:libc|libm|ld-linux\S*)\.so\.\d)", linked)):
        target = tmp_path / binary[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(binary, target)
    for applet in ("sh", "readlink"):
        (tmp_path / "bin" / applet).symlink_to("busybox")
    shutil.copytree(standalone, tmp_path / "opt/minprov")
    (tmp_path / "proc").mkdir()
    script = f"mount -t proc none {tmp_path}/proc; exec chroot {tmp_path} /opt/minprov/minprov --dry-run --timeout 1"
    namespaces = ["--mount", "--net", "--pid", "--fork", "--propagation", "private"]
    done = subprocess.run(["unshare", *namespaces, "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == os.EX_NOINPUT, done.stderr
    assert "this machine is not on Azure" in done.stdout


@pytest.fixture
def small_machine(static: Path, tmp_path: Path) -> Path:
    return make_small_machine(static, tmp_path)


def make_small_machine(static: Path, tmp_path: Path) -> Path:
    """Make a root directory with nothing but the static program, some of /etc, and busybox with its account tools."""
    for place in ("bin", "dev", "etc", "home", "proc", "run", "tmp", "var/lib"):
        (tmp_path / place).mkdir(parents=True)
    tmp_path.chmod(0o755)  # a user may enter /
    shutil.copy(static / "minprov", tmp_path)
    shutil.copy(BUSYBOX, tmp_path / "bin/busybox")
    for applet in ("adduser", "addgroup", "chpasswd"):
        (tmp_path / "bin" / applet).symlink_to("busybox")
    (tmp_path / "bin/sh").symlink_to("busybox")
    accounts = {"passwd": "root:x:0:0::/:/bin/sh\n", "group": "root:x:0:\n", "shadow": "root:*:1::::::\n"}
    for name, text in accounts.items():
        (tmp_path / "etc" / name).write_text(text)
    os.mknod(tmp_path / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    return tmp_path


def in_small_machine(root: Path, *flags: str, program: str = "/minprov") -> str:
    """Provision it from the emulated platform, and return what was printed."""

    async def main() -> str:
        async with emulated_platform() as platform:
            shutil.copy(platform.media, root / "media")
            urls = ["--imds-url", platform.imds_url, "--wireserver-url", platform.wireserver_url]
            namespaces = ["--uts", "--mount", "--pid", "--fork", "--propagation", "private"]
            script = f'mount -t proc none {root}/proc; exec chroot {root} {program} --media /media "$@"'
            command = ["unshare", *namespaces, "sh", "-c", script, "sh", *urls, *flags]
            return (await asyncio.to_thread(run, *command)).stdout

    return asyncio.run(main())


def test_static_program_is_linked_to_nothing(static: Path) -> None:
    headers = run("readelf", "--program-headers", "--wide", static / "minprov").stdout
    assert "LOAD" in headers
    assert "INTERP" not in headers
    assert "DYNAMIC" not in headers
    assert {path.name for path in static.iterdir()} == {"licenses", "minprov", "units"}
    assert (static / "minprov").stat().st_size <= 14 << 20


def test_static_program_plans_where_there_is_nothing_else(small_machine: Path) -> None:
    assert run("chroot", small_machine, "/minprov", "--version").stdout == f"minprov {__version__}\n"
    before = files(small_machine) | {small_machine / "media"}
    assert "azureuser" in in_small_machine(small_machine, "--dry-run")
    assert files(small_machine) == before


def test_static_program_provisions_where_there_is_nothing_but_busybox(small_machine: Path) -> None:
    assert "Reported Ready" in in_small_machine(small_machine)
    assert (small_machine / "etc/hostname").read_text() == "web-01\n"
    assert re.search(r"^azureuser:\$6\$", (small_machine / "etc/shadow").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("form", "more"),
    [
        ("bundle", {"uvloop"}),
        ("standalone", {"uvloop", "libssl3", "zlib1g", "libexpat1"}),
        ("static", {"python", "expat", "zlib", "libffi", "musl"}),
    ],
)
def test_bill_of_materials_is_valid_and_names_what_is_in_the_build(form: str, more: set[str], dist: Path) -> None:
    (file,) = dist.glob(f"*{form}*-{platform.machine()}.cdx.json")
    text = file.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    components = json.loads(text)["components"]
    pinned = re.findall(r"^(\S+)==(\S+)", (APPLIANCE / "requirements.txt").read_text(), re.MULTILINE)
    from_index = {part["purl"] for part in components if part["purl"].startswith("pkg:pypi/")}
    assert from_index <= {f"pkg:pypi/{name}@{version}" for name, version in pinned}
    names = {component["name"] for component in components}
    assert names >= {"aiohttp", "aiofiles", "defusedxml"} | more
    assert ("uvloop" in names) == ("uvloop" in more)
    assert any(name.startswith("python3") for name in names) == (form == "standalone")


@pytest.mark.parametrize(
    ("package", "needed", "wanted"),
    [
        ("minprov", {"python3", "python3-aiofiles", "python3-aiohttp", "python3-defusedxml"}, {"python3-uvloop"}),
        ("minprov-duties", {"minprov", "python3"}, {"btrfs-progs", "e2fsprogs", "xfsprogs"}),
        ("minprov-initramfs", {"openssh-client", "passwd", "sudo"}, {"dracut-network", "initramfs-tools-core"}),
        ("minprov-tools", {"minprov", "python3"}, {"mtools", "python3-pycdlib", "qemu-utils"}),
    ],
)
def test_bill_of_a_debian_package_names_what_it_needs_beside_it(
    package: str, needed: set[str], wanted: set[str], dist: Path
) -> None:
    text = (dist / f"{package}_{__version__}_all.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    assert document["metadata"]["component"]["name"] == package
    scopes = {part["name"]: part["scope"] for part in document["components"]}
    assert scopes == dict.fromkeys(needed, "required") | dict.fromkeys(wanted, "optional")


def test_every_component_comes_with_its_license(directory: Path, dist: Path) -> None:
    form = "standalone" if (directory / "bin").exists() else "bundle" if (directory / "lib").exists() else "static"
    (file,) = dist.glob(f"*{form}*-{platform.machine()}.cdx.json")
    names = {component["name"] for component in json.loads(file.read_text())["components"]} | {"minprov"}
    licenses = {path.name: path.stat().st_size for path in (directory / "licenses").iterdir()}
    assert licenses.keys() == names
    assert min(licenses.values()) > 500
