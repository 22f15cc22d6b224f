"""``minprov import-waagent-conf``: print a minprov.toml that does what a waagent.conf says."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from minprov.commands.output import print_text
from minprov.commands.parser import Parser
from minprov.config import MAX_CONFIG_SIZE
from minprov.errors import ProvisioningError, Reason
from minprov.image.findings import printable
from minprov.image.waagent_import import Translation, Value, translate
from minprov.machine.files import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

WAAGENT_CONF = "/etc/waagent.conf"
LOST = 1
"""The exit status where something that is switched on has no counterpart."""


def run(argv: list[str]) -> int:
    """Print the configuration and return the exit status.

    Raises:
        ProvisioningError: USAGE, CONFIG_INVALID.

    """
    file = vars(build_parser().parse_args(argv)).get("file", WAAGENT_CONF)
    translations = translate(_read(file))
    print_text(render(file, translations))
    lost = [translation for translation in translations if translation.lost]
    for translation in lost:
        sys.stderr.write(f"minprov: lost: {_words(translation)}\n")
    return LOST if lost else os.EX_OK


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        prog="minprov import-waagent-conf",
        description="Print a minprov.toml that does what a waagent.conf says, with a comment for each of its keys. "
        "Nothing is written elsewhere. The exit status is 1 if something that is switched on has no counterpart.",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help=f"the waagent.conf (default: {WAAGENT_CONF})")
    return parser


def render(file: str, translations: list[Translation]) -> Iterator[str]:
    """Yield the lines of the minprov.toml: its tables, then comments on what is in none of them."""
    yield f"# Made from {printable(file)} by `minprov import-waagent-conf`: docs/generalise.md."
    tables: dict[str, list[str]] = {"": []}  # keys outside of tables come first in TOML
    for translation in translations:
        comment = f"# {_words(translation)}"
        for key, value in translation.settings.items():
            table, _, name = key.rpartition(".")
            lines = tables.setdefault(table, [])
            lines += [comment] if comment not in lines else []
            lines.append(f"{name} = {_toml(value)}")
    for table, lines in tables.items():
        if lines:
            yield ""
            if table:
                yield f"[{table}]"
            yield from lines
    for title, lost in (("Lost, although it is switched on:", True), ("Nothing has to be set for:", False)):
        others = [t for t in translations if not t.settings and t.lost is lost]
        if others:
            yield ""
            yield f"# {title}"
            yield from (f"#   {_words(translation)}" for translation in others)


def _words(translation: Translation) -> str:
    entry = translation.entry
    return f"line {entry.line}, {printable(f'{entry.key}={entry.value}')}: {translation.note}"


def _toml(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)  # of a printable string, a basic string of TOML as well


def _read(file: str) -> str:
    try:
        contents = read_file(None, file, follow=True, limit=MAX_CONFIG_SIZE)
    except OSError as error:
        raise ProvisioningError(Reason.CONFIG_INVALID, file=file, detail=error.strerror) from error
    if contents is None:
        raise ProvisioningError(Reason.CONFIG_INVALID, file=file, detail="there is no such file")
    return contents.decode(errors="replace")
