"""Write the parts of docs/ that are made from the code. Run it from the repository's root: `make docs`."""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path

from minprov.config import SETTINGS, Options
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


CONFIGURATION_HEAD = """\
# Configuration

<!-- Made from minprov/config.py by scripts/generate_docs.py: change it there, then run `make docs`. -->

No file is needed. `/etc/minprov/minprov.toml` is read first, then `/etc/minprov/minprov.toml.d/*.toml` in order of
name; what comes later wins, and flags win over files. `--config FILE` reads FILE and `FILE.d/*.toml` instead. An
unknown key or a value of the wrong type is an error that names the file, the key and the nearest valid key; the
platform is told of it, since otherwise nobody would be. `minprov --dry-run` shows what a run would do with the settings
in force.

A policy is `required` (Ready is reported only if it holds), `best-effort` (it is tried, and a failure is in the report)
or `off`. With every policy `off` minprov reports Ready and does nothing else.

```toml
[user]
shell = "/bin/sh"
groups = ["adm", "docker"]

[sudo]
policy = "off"
```

| key | default | meaning |
|---|---|---|
"""


def render_configuration() -> str:
    """Return docs/configuration.md: one row for each setting."""
    defaults = Options()._asdict()
    rows = (f"| `{key}` | {_toml(defaults[setting.field])} | {setting.help} |\n" for key, setting in SETTINGS.items())
    return CONFIGURATION_HEAD + "".join(rows)


def _toml(value: object) -> str:
    """Return a default as TOML, followed by what else the setting may be where that is a short list."""
    if isinstance(value, Enum):
        others = ", ".join(f'`"{member.value}"`' for member in type(value) if member is not value)
        return f'`"{value.value}"` (or {others})'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{json.dumps(value)}`"


DOCUMENTS = {"docs/reasons.md": render_reasons, "docs/configuration.md": render_configuration}


def main() -> None:
    """Write every document."""
    for path, render in DOCUMENTS.items():
        Path(path).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
