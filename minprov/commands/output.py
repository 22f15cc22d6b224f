"""What a command prints on stdout: a document, as JSON or as text made to be read."""

from __future__ import annotations

import io
import json
import sys
from typing import Any


def print_result(document: dict[str, Any], *, as_json: bool) -> None:
    """Print a document of `minprov/result/1`."""
    if as_json:
        text = json.dumps(document, indent=2)
    else:
        from minprov.outcome.text import render

        text = render(document)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files and words of tools may have what the locale's encoding has not: it is written as \\uXXXX.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout.write(text + "\n")
