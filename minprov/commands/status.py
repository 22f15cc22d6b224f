"""``minprov status``: print the last run's result."""

from __future__ import annotations

import json
import os
from typing import Any

from minprov.commands.output import print_result, print_text
from minprov.commands.parser import Parser
from minprov.config import CONFIG_FILE, load
from minprov.errors import ProvisioningError, Reason
from minprov.machine.files import file_error, read_file
from minprov.machine.markers import REPORT
from minprov.machine.paths import resolve_beneath
from minprov.outcome.chart import render_chart
from minprov.outcome.result import SCHEMA


def run(argv: list[str]) -> int:
    """Print it and return the exit status.

    Raises:
        ProvisioningError: NO_REPORT, NOT_PERMITTED, CONFIG_INVALID, USAGE.

    """
    flags = vars(build_parser().parse_args(argv))
    path, document = _read(flags)
    try:
        _add_end_of_program(document, flags)
        if "html" in flags:
            _write_page(flags["html"], document)
            return os.EX_OK
        print_result(document, as_json=flags.get("json", False))
        if "json" not in flags:
            print_text(["", "When", *render_chart(document["timings"])])
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # it says what it is, and is not
        raise ProvisioningError(Reason.NO_REPORT, path=path, detail="damaged") from error
    return os.EX_OK


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(prog="minprov status", description="Print the last run's result.")
    parser.add_argument("--root", metavar="DIR", help="of the tree at DIR (default: /)")
    parser.add_argument("--config", metavar="FILE", help=f"and FILE.d/*.toml (default: {CONFIG_FILE}, if there)")
    parser.add_argument("--json", action="store_true", help="print one JSON document (default: text)")
    parser.add_argument("--html", metavar="FILE", help="write a page that can be looked at, in place of text")
    return parser


def _write_page(path: str, document: dict[str, Any]) -> None:
    from minprov.outcome.page import render_result_page

    page = render_result_page(document).encode(errors="replace")
    try:
        with open(path, "wb") as stream:
            stream.write(page)
    except OSError as error:
        raise file_error(error, path) from error


def _add_end_of_program(document: dict[str, Any], flags: dict[str, Any]) -> None:
    """Put in how customData ended, which after Ready is later than the result was written."""
    late = [action for action in document["actions"] if action["action"] == "execute-custom-data"]
    if not late:
        return
    from minprov.machine.system import System
    from minprov.properties.custom_data_run import find_end

    options, system = load(flags.get("config")), System(flags.get("root", "/"), look_only=True)
    if end := find_end(system, options.state_dir, document["vm_id"]):
        late[0]["detail"] = end


def _read(flags: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    options = load(flags.get("config"))
    path = f"{options.state_dir}/{REPORT}"
    try:
        path = resolve_beneath(flags.get("root", "/"), path)
        contents = read_file(None, path)
        document = None if contents is None else json.loads(contents)
    except PermissionError as error:
        raise ProvisioningError(Reason.NOT_PERMITTED, path=path, detail="the report is for root") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ProvisioningError(Reason.NO_REPORT, path=path, detail=error) from error
    if contents is None:
        raise ProvisioningError(Reason.NO_REPORT, path=path)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ProvisioningError(Reason.NO_REPORT, path=path, detail=f"not a document of {SCHEMA}")
    return path, document
