"""The layout is a promise: imports point one way, and what must stay pure does no I/O."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = Path(__file__).parent.parent / "minprov"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "emulator" not in path.parents)

# From the bottom to the top; a module may import what stands in a lower row.
LAYERS = (
    {"__init__"},
    {"deferred", "errors", "model", "paths", "timeline", "identity"},
    {"names", "xmldoc", "pem", "accounts", "retry", "shacrypt", "actions", "state", "report", "kvp"},
    {"volume", "cdrom", "apart", "routes"},
    {"sshkeys", "ovf", "imds", "wire", "udf", "iso9660", "kernelmount", "config"},
    {"media", "transport", "plan", "system"},
    {"loop", "reading", "result", "properties", "coexistence", "render"},
    {"apply", "gather", "announce"},
    {"provision"},
    {"cli"},
    {"__main__"},
)
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
    {"tools", "transcript"},
    {"network"},
    {"login", "machine", "platform"},
    {"image"},
    {"boot"},
    {"cli"},
)
PURE = {
    "actions",
    "accounts",
    "iso9660",
    "model",
    "names",
    "ovf",
    "pem",
    "plan",
    "report",
    "shacrypt",
    "sshkeys",
    "udf",
    "volume",
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


def layer_of(module: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if module in names)


def own_module(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    here = own_module(path)
    for name in imported_by(path):
        package, _, rest = name.partition(".")
        there = rest.split(".")[0]
        if package != "minprov" or there in {here, "emulator", "__version__"}:
            continue
        assert layer_of(there) < layer_of(here), f"{here} imports {name}"


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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_first_boot_imports_the_given_packages_and_the_standard_library_alone(path: Path) -> None:
    foreign = {name.split(".")[0] for name in imported_by(path)} - set(sys.stdlib_module_names) - {"minprov"}
    assert foreign <= FIRST_BOOT_PACKAGES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_knows_the_emulator(path: Path) -> None:
    knows = any(name.startswith("minprov.emulator") for name in imported_by(path))
    assert knows == (own_module(path) == "cli")


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_import_nothing_that_acts(module: str) -> None:
    imported = {name.split(".")[0] for name in imported_by(PACKAGE / f"{module}.py")}
    assert not imported & IMPURE_IMPORTS


def test_transport_alone_imports_the_http_client() -> None:
    importers = {own_module(path) for path in MODULES if any(n.split(".")[0] == "aiohttp" for n in imported_by(path))}
    assert importers == {"transport"}


def test_every_module_has_a_layer() -> None:
    assert {own_module(path) for path in MODULES} <= set().union(*LAYERS) | {"emulator"}
