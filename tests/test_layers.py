"""The layout is a promise: imports point one way, and what must stay pure does no I/O."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = Path(__file__).parent.parent / "minprov"
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if PACKAGE / "emulator" not in path.parents and path.name != "__init__.py"
)

# From the bottom to the top, row by row: folders, and the modules beside them. Each may import from lower rows.
ORDER = (
    {"deferred", "definitions", "limits"},
    {"errors"},
    {"model"},
    {"actions", "formats", "report"},
    {"config", "imds", "ovf"},
    {"choice"},
    {"machine", "network", "plan"},
    {"discs", "outcome", "sources", "wire"},
    {"media", "properties", "gather"},
    {"apply", "bounds", "earlier_runs", "last_resort"},
    {"reporting"},
    {"image", "provision"},
    {"image.checks"},
    {"image.deprovision", "image.fixes"},
    {"duties.certificates", "duties.follow_up", "duties.hooks", "duties.resource_disk", "duties.wait_in_pool"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
# The same inside each folder.
INSIDE = {
    "formats": (
        {"sha2"},
        {
            "accounts",
            "boot_entries",
            "cpio",
            "custom_data",
            "fstab",
            "grub_core",
            "hosts_access",
            "mounts",
            "names",
            "ntfs",
            "pe",
            "pem",
            "sha_crypt",
            "sshd_config",
            "sudo_listing",
            "sudoers",
            "thumbprint",
            "vhd_footer",
            "waagent_conf",
            "xml_document",
        },
        {"ageing", "disk_image", "ssh_keys"},
        {"partitions"},
        {"superblocks"},
    ),
    "machine": (
        {
            "blocking",
            "child_process",
            "directories",
            "file_systems",
            "identity",
            "interfaces",
            "own_program",
            "password_hash",
            "paths",
            "processes",
            "shortage",
            "tools",
        },
        {"proxy_agent"},
        {"files", "manifest", "markers"},
        {"journal"},
        {"system"},
        {"account_locks", "duty_record", "provisioners"},
    ),
    "network": (
        {"event_loop", "retry", "routes"},
        {"transport"},
    ),
    "discs": (
        {"access", "kernel_mount", "volume"},
        {"drive", "iso9660", "udf"},
        {"reader"},
        {"search"},
        {"reading"},
    ),
    "outcome": (
        {"chart", "kvp", "result", "terminal", "text", "timeline"},
        {"channels", "page"},
    ),
    "sources": ({"certificate_keys", "systemd_imds"}, {"imds"}),
    "properties": (
        {"name_service"},
        {"home", "inspection", "pam", "sshd_settings", "user_directories"},
        {"reachable"},
        {"login"},
        {"account_state", "doas"},
        {
            "custom_data_run",
            "hooks",
            "eject_media",
            "host_keys",
            "proxy_agent",
            "published_hostname",
            "required_duty",
            "sshd",
            "stored_file",
            "sudo",
            "user",
            "waagent",
        },
        {"authorized_keys", "hostname", "password", "pool", "root_password"},
        {"host_key_fingerprints", "kept_account", "withdrawal"},
    ),
    "duties.certificates": (
        {"contents", "settings"},
        {"key_pairs", "libcrypto", "openssl_tool"},
        {"duty"},
    ),
    "duties.follow_up": (
        {"dns_messages", "settings"},
        {"dns_check", "role_properties"},
        {"duty"},
    ),
    "duties.hooks": ({"programs", "settings", "output"}, {"duty"}),
    "duties.resource_disk": (
        {"settings"},
        {"discovery", "usage"},
        {"contents", "mount_point"},
        {"decision"},
        {"disk"},
        {"swap", "timeouts"},
        {"duty"},
    ),
    "duties.wait_in_pool": ({"links", "settings"}, {"duty"}),
    "image": (
        {"esp", "mounts", "progress", "tree"},
        {"family", "initramfs", "layout", "qemu_img"},
        {"disk_file", "kernels", "model"},
        {"boot", "guestfs", "mounted_disk", "network", "services", "signatures", "system_program", "vhd"},
        {"disk"},
        {"subject"},
        {"findings", "waagent_import"},
    ),
    "image.checks": (
        {
            "agents",
            "disk",
            "duties",
            "kernel",
            "leftovers",
            "login",
            "machine_id",
            "messages",
            "network",
            "secure_boot",
        },
        {"outcome"},
        {"text"},
    ),
    "image.deprovision": ({"rules", "shutdown"}, {"accounts"}, {"planning"}, {"carrying_out"}),
    "image.fixes": ({"steps"}, {"console", "files"}, {"fixing"}),
    "commands": (
        {"logs", "output", "parser", "stopping"},
        {
            "certificates",
            "check_fix",
            "custom_data",
            "deprovision",
            "follow_up",
            "hooks",
            "import_waagent_conf",
            "publish_hostname",
            "resource_disk",
            "run",
            "status",
            "vhd",
        },
        {"check", "wait_in_pool"},
    ),
}
EMULATOR_LAYERS = (
    {"exchange", "tables", "certificates"},
    {"vm"},
    {"faults", "goal_state", "instance", "options", "ovf_env"},
    {"delivery", "host_plugin", "imds", "media", "wireserver"},
    {"platform"},
    {"record", "sample"},
    {"guest"},
    {"cli"},
    {"__main__"},
)
GUEST_LAYERS = (
    {"architecture", "outputs", "tools", "transcript", "waiting"},
    {"acceleration", "network"},
    {"login", "machine", "platform"},
    {"image"},
    {"boot"},
    {"cli"},
)
PURE = {
    "actions",
    "discs.iso9660",
    "discs.udf",
    "discs.volume",
    "formats",
    "imds",
    "model",
    "ovf",
    "plan",
    "report",
}
IMPURE_IMPORTS = {"aiofiles", "aiohttp", "asyncio", "fcntl", "logging", "random", "socket", "subprocess", "time"}
FIRST_BOOT_PACKAGES = {"aiohttp", "aiofiles", "defusedxml", "uvloop"}


def imported_by(path: Path) -> set[str]:
    """Return the full names of all modules that a file imports for use at run time, wherever the import stands."""
    names: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            module = ".".join((*package, *([node.module] if node.module else [])))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def full_name(path: Path) -> str:
    """Return a module's name below the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


NAMES = {full_name(path) for path in MODULES}


def own_imports(path: Path) -> set[str]:
    """Return the modules of the package, the emulator's aside, that a module imports."""
    found = set()
    for name in imported_by(path):
        module = name.removeprefix("minprov.") if name.startswith("minprov.") else ""
        while module and module not in NAMES:
            module = module.rpartition(".")[0]
        found |= {module} - {"", full_name(path)}
    return found


def row_of(name: str, rows: Sequence[set[str]]) -> int:
    return next(index for index, row in enumerate(rows) if name in row)


def is_below(module: str, importer: str) -> bool:
    """Tell whether `importer` may import `module`."""
    folder, _, name = module.rpartition(".")
    other, _, importer_name = importer.rpartition(".")
    if folder and folder == other:
        return row_of(name, INSIDE[folder]) < row_of(importer_name, INSIDE[folder])
    return row_of(folder or name, ORDER) < row_of(other or importer_name, ORDER)


@pytest.mark.parametrize("path", MODULES, ids=full_name)
def test_imports_point_downwards(path: Path) -> None:
    upwards = [module for module in own_imports(path) if not is_below(module, full_name(path))]
    assert not upwards, f"{full_name(path)} imports {upwards}; from the bottom to the top there are\n{render_map()}"


def test_every_module_has_its_place() -> None:
    placed = set().union(*ORDER) - INSIDE.keys()
    placed |= {f"{folder}.{name}" for folder, rows in INSIDE.items() for name in set().union(*rows)}
    assert placed == NAMES


def render_map() -> str:
    """Return the order of the folders and modules, from the bottom to the top."""
    lines = []
    for row in ORDER:
        for name in sorted(row):
            inside = " < ".join(", ".join(sorted(modules)) for modules in INSIDE.get(name, ()))
            lines.append(f"  {name}" + (f"/  {inside}" if inside else ""))
        lines.append("")
    return "\n".join(lines)


@pytest.mark.parametrize(("package", "layers"), [("emulator", EMULATOR_LAYERS), ("emulator/guest", GUEST_LAYERS)])
def test_imports_of_the_emulator_point_downwards(package: str, layers: Sequence[set[str]]) -> None:
    level = {module: index for index, names in enumerate(layers) for module in names}
    directory = PACKAGE / package
    prefix = f"minprov.{package.replace('/', '.')}."
    for path in directory.rglob("*.py"):
        here = path.relative_to(directory).parts[0].removesuffix(".py")
        if here in {"__init__", "data"}:
            continue
        for name in imported_by(path):
            there = name.removeprefix(prefix).split(".")[0] if name.startswith(prefix) else here
            assert there == here or level[there] < level[here], f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=full_name)
def test_first_boot_imports_the_given_packages_and_the_standard_library_alone(path: Path) -> None:
    standard = sys.stdlib_module_names | {
        "_sha2",
        "_sha256",
        "_sha512",
    }  # the first since Python 3.12, the others till then
    foreign = {name.split(".")[0] for name in imported_by(path)} - standard - {"minprov"}
    assert foreign <= FIRST_BOOT_PACKAGES


@pytest.mark.parametrize("path", MODULES, ids=full_name)
def test_only_the_run_command_knows_the_emulator(path: Path) -> None:
    knows = any(name.startswith("minprov.emulator") for name in imported_by(path))
    assert knows == (full_name(path) == "commands.run")


@pytest.mark.parametrize("path", MODULES, ids=full_name)
def test_only_the_command_of_a_duty_knows_it(path: Path) -> None:
    duties = {name.split(".")[1] for name in own_imports(path) if name.startswith("duties.")}
    folder, _, name = full_name(path).partition(".")
    assert duties <= {name.split(".")[0]} if folder in ("commands", "duties") else not duties


@pytest.mark.parametrize("path", [path for path in MODULES if {full_name(path), full_name(path).split(".")[0]} & PURE])
def test_pure_modules_import_nothing_that_acts(path: Path) -> None:
    imported = {name.split(".")[0] for name in imported_by(path)}
    assert not imported & IMPURE_IMPORTS


def test_transport_alone_imports_the_http_client() -> None:
    importers = {full_name(path) for path in MODULES if any(n.split(".")[0] == "aiohttp" for n in imported_by(path))}
    assert importers == {"network.transport"}


def test_packages_have_an_empty_init() -> None:
    # A first boot pays for each import, and the emulator is a program of its own.
    filled = [path for path in PACKAGE.rglob("*/__init__.py") if path.read_text()]
    assert [path for path in filled if PACKAGE / "emulator" not in path.parents] == []


def test_the_map_in_the_documents_has_every_folder_above_what_it_imports() -> None:
    document = (PACKAGE.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*`) \|", document.partition("## One run")[0], re.MULTILINE)
    place = {name: index for index, row in enumerate(rows) for name in re.findall(r"`([a-z_]+)/?`", row)}
    assert place.keys() == {name.split(".")[0] for name in NAMES} | {"emulator"}
    for path in MODULES:
        here = full_name(path).split(".")[0]
        for there in {module.split(".")[0] for module in own_imports(path)} - {here}:
            assert place[there] <= place[here], f"{here} imports {there}, which stands above it in ARCHITECTURE.md"
