"""``minprov status``: print the last run's result."""

from __future__ import annotations

import json
import os
from typing import Any

from minprov.commands.output import print_result
from minprov.commands.parser import Parser
from minprov.config import CONFIG_FILE, load
from minprov.errors import ProvisioningError, Reason
from minprov.machine.markers import REPORT
from minprov.machine.paths import resolve_beneath


def run(argv: list[str]) -> int:
    """Print it and return the exit status.

    Raises:
        ProvisioningError: NO_REPORT, NOT_PERMITTED, CONFIG_INVALID, USAGE.

    """
    flags = vars(build_parser().parse_args(argv))
    print_result(_read(flags), as_json=flags.get("json", False))
    return os.EX_OK


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(prog="minprov status", description="Print the last run's result.")
    parser.add_argument("--root", metavar="DIR", help="of the tree at DIR (default: /)")
    parser.add_argument("--config", metavar="FILE", help=f"and FILE.d/*.toml (default: {CONFIG_FILE}, if there)")
    parser.add_argument("--json", action="store_true", help="print one JSON document (default: text)")
    return parser


def _read(flags: dict[str, Any]) -> dict[str, Any]:
    options = load(flags.get("config"))
    path = f"{resolve_beneath(flags.get('root', '/'), options.state_dir)}/{REPORT}"
    try:
        with open(path, encoding="utf-8") as stream:
            document: dict[str, Any] = json.load(stream)
    except FileNotFoundError as error:
        raise ProvisioningError(Reason.NO_REPORT, path=path) from error
    except PermissionError as error:
        raise ProvisioningError(Reason.NOT_PERMITTED, path=path, detail="the report is for root") from error
    except (OSError, ValueError) as error:
        raise ProvisioningError(Reason.NO_REPORT, path=path, detail=error) from error
    return document
