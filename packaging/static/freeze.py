"""Write the modules that minprov can reach as what is linked into the static form; run by the Python that it is for.

    python freeze.py SITE DIRECTORY

DIRECTORY gets `modules.bin`, the bytecode of all modules, `modules.S`, which puts it into the program, and `modules.c`,
the table by which Python finds each there: https://docs.python.org/3.11/c-api/import.html#c.PyImport_FrozenModules.
"""

from __future__ import annotations

import marshal
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
APPLIANCE = ROOT / "packaging/appliance"
# They could not be imported: there is no OpenSSL, no dynamic linker to load uvloop with, and no mpdecimal.
UNAVAILABLE = ["_decimal", "_hashlib", "_ssl", "ssl", "uvloop"]

# On pages of its own. A comment would begin otherwise on each processor.
ASSEMBLY = """\
    .section .rodata
    .global minprov_bytecode, minprov_bytecode_end
    .balign 4096
minprov_bytecode:
    .incbin "modules.bin"
minprov_bytecode_end:
    .section .note.GNU-stack, "", %progbits
"""
HEADER = """\
#include <Python.h>

extern const unsigned char minprov_bytecode[];

const struct _frozen minprov_modules[] = {
"""


def main(site: str, directory: Path) -> None:
    """Write what is reached from `site` and the standard library to `directory`."""
    sys.path.append(str(APPLIANCE))
    import archive

    archive.UNREACHED += UNAVAILABLE
    sys.path.remove(str(APPLIANCE))
    bytecode = b""
    rows = []
    for module in archive.reach(site):
        with open(module.file, "rb") as source:
            # Without docstrings, which nobody asks for: a fifth of the size.
            code = marshal.dumps(compile(source.read(), module.path, "exec", dont_inherit=True, optimize=2))
        rows.append(
            f'    {{"{module.name}", minprov_bytecode + {len(bytecode)}, {len(code)}, {int(module.is_package)}}},\n'
        )
        bytecode += code
    (directory / "modules.bin").write_bytes(bytecode)
    (directory / "modules.S").write_text(ASSEMBLY)
    (directory / "modules.c").write_text(f"{HEADER}{''.join(rows)}    {{0}},\n}};\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
