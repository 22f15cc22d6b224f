"""What a command prints on stdout: a document, as JSON or as text made to be read."""

from __future__ import annotations

import io
import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def print_result(document: dict[str, Any], *, as_json: bool) -> None:
    """Print a document of `minprov/result/1`."""
    if as_json:
        text = json.dumps(document, indent=2)
    else:
        from minprov.outcome.text import render

        text = render(document)
    print_text([text])


def print_actions(document: dict[str, Any], *, as_json: bool) -> None:
    """Print what a duty has done, or would do: a document that has actions."""
    if as_json:
        text = json.dumps(document, indent=2)
    else:
        from minprov.outcome.text import render_actions

        text = render_actions(document["actions"])
    print_text([text])


def print_switched_off(duties: str, *, dry_run: bool) -> None:
    """Say to who looks on that there is nothing to do; at a boot nobody asks."""
    if dry_run or sys.stdout.isatty():
        print_text([f"{duties} switched off"])


def print_text(lines: Iterable[str]) -> None:
    """Print lines, whatever the locale's encoding lacks of what is in them."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files and words of tools may have any character: one that cannot be written is shown as \\uXXXX.
        sys.stdout.reconfigure(errors="backslashreplace")
    with suppress(OSError):  # nobody reads, or there is no room: no failure of what was done
        sys.stdout.writelines(f"{line}\n" for line in lines)
