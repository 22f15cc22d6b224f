"""Find every module that minprov can reach and write their bytecode into one file; run by the Python that it is for.

    python -I archive.py SITE LIBRARY [--standalone]

SITE has minprov and what it depends on. LIBRARY gets the archive, the extension modules, and the sources, for another
version of Python. With --standalone the archive has the standard library too, and there are no sources. What is reached
is found by following import statements, those inside functions as well.

The archive: the length of the index (8 bytes, big-endian), the index ({name: (offset, length, is package)}, marshal),
and each module's code (marshal).
"""

from __future__ import annotations

import marshal
import os
import shutil
import sys
from modulefinder import ModuleFinder
from pathlib import Path
from py_compile import PycInvalidationMode
from py_compile import compile as write_bytecode
from typing import NamedTuple

# Named by an import statement that no run comes to: a client has no server, an appliance no emulator and no debugger.
UNREACHED = [
    "aiohttp.web", "aiohttp.web_app", "aiohttp.web_exceptions", "aiohttp.web_log", "aiohttp.web_request",
    "aiohttp.web_response", "aiohttp.worker", "asyncio.proactor_events", "asyncio.windows_events",
    "asyncio.windows_utils", "doctest", "minprov.emulator", "multiprocessing", "pdb", "pydoc", "test", "unittest",
    "xmlrpc",
    # Whoever imports these does without, and each would bring a library along.
    "_uuid", "bz2", "lzma",
]  # fmt: skip
# Found by name at run time. Python needs the first two before it can run anything that would look into an archive.
EARLY_ENCODINGS = ("encodings", "encodings.aliases", "encodings.utf_8")
ENCODINGS = (*EARLY_ENCODINGS, "encodings.ascii", "encodings.idna", "encodings.latin_1")


class Module(NamedTuple):
    """A module that was found; `path` is its file's below the directory that it is imported from."""

    name: str
    file: str
    path: str
    is_package: bool

    @property
    def is_extension(self) -> bool:
        """Whether it is machine code."""
        return not self.file.endswith(".py")


def reach(site: str) -> list[Module]:
    """Return the modules that minprov can import, in order of name, without those built into Python."""
    finder = ModuleFinder([site, *sys.path], excludes=UNREACHED)
    # What uvloop imports from its machine code cannot be seen, so all of it is reached, as all of minprov is.
    files = [path for package in ("minprov", "uvloop") for path in Path(site, package).rglob("*.py")]
    own = [".".join(path.relative_to(site).with_suffix("").parts).removesuffix(".__init__") for path in files]
    for name in (*own, *ENCODINGS):
        finder.import_hook(name)
    found = {name: getattr(module, "__file__", None) for name, module in sorted(finder.modules.items())}
    return [_module(name, file) for name, file in found.items() if file]


def _module(name: str, file: str) -> Module:
    *parents, last = name.split(".")
    is_package = os.path.basename(file) == "__init__.py"
    path = os.path.join(*parents, last if is_package else "", os.path.basename(file))
    return Module(name, file, path, is_package)


def write_archive(file: str, modules: list[Module]) -> None:
    """Write the modules' bytecode; it names files by module, so that the same sources give the same bytes anywhere."""
    index = {}
    contents = b""
    for module in modules:
        with open(module.file, "rb") as source:
            code = marshal.dumps(compile(source.read(), module.path, "exec", dont_inherit=True))
        index[module.name] = (len(contents), len(code), module.is_package)
        contents += code
    header = marshal.dumps(index)
    with open(file, "wb") as archive:
        archive.write(len(header).to_bytes(8) + header + contents)


def copy(module: Module, library: str) -> None:
    """Copy a module's file to its place in `library`."""
    target = os.path.join(library, module.path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(module.file, target)


def write_home(home: str, modules: list[Module]) -> None:
    """Make the directory by which Python recognises its home, with what it imports before it runs anything."""
    os.makedirs(f"{home}/lib-dynload")
    with open(f"{home}/os.py", "wb"):
        pass  # os is frozen into Python; its file is the landmark
    for module in modules:
        if module.name in EARLY_ENCODINGS:
            write_bytecode(
                module.file, f"{home}/{module.path}c", module.path, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
            )


def main(site: str, library: str, *flags: str) -> None:
    """Write what is reached from `site`, and with --standalone from the standard library, to `library`."""
    standalone = "--standalone" in flags
    reached = reach(site)
    own = [module for module in reached if module.file.startswith(f"{site}/")]
    modules = reached if standalone else own
    python = [module for module in modules if not module.is_extension]
    write_archive(f"{library}/{sys.implementation.cache_tag}.modules", python)
    for module in modules:
        # The others that are beside Python code with the same in it save less time than it takes to read them.
        if module.is_extension and (module not in own or module.name == "uvloop.loop"):
            copy(module, library)
    if standalone:
        write_home(f"{library}/python{sys.version_info.major}.{sys.version_info.minor}", reached)
    else:
        for module in python:
            copy(module, library)


if __name__ == "__main__":
    main(*sys.argv[1:])
