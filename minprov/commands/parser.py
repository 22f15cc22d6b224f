"""What the parsers of all commands have in common."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from minprov.config import CONFIG_FILE
from minprov.errors import ProvisioningError, Reason
from minprov.limits import MAX_SECONDS, MIN_SECONDS


class Parser(argparse.ArgumentParser):
    """A parser whose errors are `ProvisioningError`; a flag that is not given is not in the namespace."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  # as argparse's
        super().__init__(argument_default=argparse.SUPPRESS, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise USAGE in place of writing to stderr and exiting."""
        raise ProvisioningError(Reason.USAGE, detail=message, hint=f"see {self.prog} --help")


def build_duty_parser(name: str, description: str, *, dry_run: str) -> Parser:
    """Return the parser of a duty's command; `dry_run` says what `--dry-run` does."""
    parser = Parser(prog=f"minprov {name}", description=description)
    parser.add_argument("--dry-run", action="store_true", help=f"{dry_run} (default: no)")
    parser.add_argument("--config", metavar="FILE", help=f"and FILE.d/*.toml (default: {CONFIG_FILE}, if there)")
    parser.add_argument("--json", action="store_true", help="print one JSON document (default: text)")
    return parser


def seconds(text: str) -> float:
    """Convert a flag's value to seconds, within what the configuration may have."""
    value = float(text)
    if not MIN_SECONDS <= value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"expected seconds from {MIN_SECONDS:g} to {MAX_SECONDS:g}: {text!r}")
    return value
