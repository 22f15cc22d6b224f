"""Write the parts of docs/ that are made from the code. Run it from the repository's root: `make docs`."""

from __future__ import annotations

import os
from pathlib import Path

from minprov.errors import Reason

REASONS_HEAD = """\
# Reasons

<!-- Made from minprov/errors.py by scripts/generate_docs.py: change it there, then run `make docs`. -->

A run that fails says why with one of these reasons: on the serial console, in the journal, in
`/var/lib/minprov/report.json`, to the host over KVP, and to the platform as the description of its health report. The
latter two read `result=error|reason=<reason>|…`, followed by what it happened to: an element, a path, a command.
The exit status is that of the process, named as in sysexits.h.

| reason | exit status | cause | what to do |
|---|---|---|---|
"""


def render_reasons() -> str:
    """Return docs/reasons.md: one row for each reason, in the order of a run."""
    names = {getattr(os, name): name for name in dir(os) if name.startswith("EX_")}
    rows = (
        f"| {reason.phrase} | {reason.exit_status} ({names[reason.exit_status]}) | {reason.cause} | {reason.action} |\n"
        for reason in Reason
    )
    return REASONS_HEAD + "".join(rows)


DOCUMENTS = {"docs/reasons.md": render_reasons}


def main() -> None:
    """Write every document."""
    for path, render in DOCUMENTS.items():
        Path(path).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
