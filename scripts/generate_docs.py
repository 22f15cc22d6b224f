"""Write the documents that are made from the code: references, man page, shell completions.

Run it from the repository's root: `make docs`.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import os
import re
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import shtab

from minprov import __version__, limits
from minprov.cli import COMMANDS, build_parser
from minprov.commands import run
from minprov.config import CONFIG_FILE, CORE, Schema, Setting, choices_of, schema_of
from minprov.definitions import Enum
from minprov.errors import Reason
from minprov.image.checks.outcome import CHECKS
from minprov.machine.markers import DEFAULT_DIRECTORY
from tests.faults.campaign import load_campaign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

EXIT_STATUSES = {getattr(os, name): name for name in dir(os) if name.startswith("EX_")}

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
    rows = (
        f"| {reason.phrase} | {reason.exit_status} ({EXIT_STATUSES[reason.exit_status]}) | {reason.cause} | "
        f"{reason.action} |\n"
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

Other duties are done by programs of their own, for which Ready does not wait unless a policy is `required`. Each has
tables in the same files and a page:
[the temporary disk, swap, and the time-outs of disks](resource-disk.md), [certificates](certificates.md), [what is told
and asked once the VM is ready](follow-up.md), and, without systemd, [hooks](hooks.md). One has a key on its own:
`preprovisioning`, for [pooled VMs](pooled.md).

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
SETTINGS_BEGIN, SETTINGS_END = "<!-- settings -->\n", "<!-- end of settings -->"
SETTINGS_NOTE = "<!-- Made from the code by scripts/generate_docs.py: change it there, then run `make docs`. -->\n\n"
SETTINGS_COLUMNS = "| key | default | meaning |\n|---|---|---|\n"


def render_configuration() -> str:
    """Return docs/configuration.md: one row for each setting."""
    return CONFIGURATION_HEAD + _rows(CORE)


def render_duty(duty: str, path: str) -> str:
    """Return a duty's page with the table of its settings made anew."""
    page = Path(path).read_text(encoding="utf-8")
    before, _, rest = page.partition(SETTINGS_BEGIN)
    _, _, after = rest.partition(SETTINGS_END)
    table = SETTINGS_NOTE + SETTINGS_COLUMNS + _rows(schema_of(duty))
    return f"{before}{SETTINGS_BEGIN}{table}{SETTINGS_END}{after}"


def _rows(schema: Schema) -> str:
    return "".join(
        f"| `{key}` | {_default(setting, schema.default(setting))} | {setting.help} |\n"
        for key, setting in schema.settings.items()
    )


def _default(setting: Setting, value: object) -> str:
    """Return a default as TOML, followed by what else the setting may be where that is a short list."""
    if isinstance(value, Enum):
        others = ", ".join(
            f"`{json.dumps(member.value)}`" for member in choices_of(setting, value) if member is not value
        )
        return f"`{json.dumps(value.value)}` (or {others})"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{json.dumps(value)}`"


FAULTS_HEAD = """\
# What can go wrong, and what comes of it

<!-- Made from tests/faults/campaign.toml by scripts/generate_docs.py: change it there, then run `make docs`. -->

Each row is a case that `make faults` runs, as root, in a machine of its own: the unmodified program, the real tools,
and the emulated platform at its real addresses. The health report is the last one that the platform took, by which
channel; reasons are those of [reasons.md](reasons.md); a negative exit status is the signal that ended the process. A
case also fails when the run does not end within the seconds given, which are never more than its deadline and ten.
"""
FAULTS_COLUMNS = """
| case | outcome | health report | reason | exit status | within |
|---|---|---|---|---|---|
"""


def render_faults() -> str:
    """Return docs/faults.md: one table for each place where things go wrong."""
    document, cases = FAULTS_HEAD, load_campaign()
    for place, group in itertools.groupby(cases, key=lambda case: case.place):
        document += f"\n## {place[0].upper()}{place[1:]}\n{FAULTS_COLUMNS}"
        for case in group:
            want = case.expected
            columns = (case.fault, want.outcome, want.told, want.reason or "", want.exit, f"{want.within:g} s")
            document += f"| {' | '.join(map(str, columns))} |\n"
    return document


LIMITS_HEAD = """\
# Time limits

<!-- Made from minprov/limits.py by scripts/generate_docs.py: change it there, then run `make docs`. -->

How long anything can take, in seconds; a share is one of the time that is left. Every number is in one module, with the
name that stands here; where it applies is said by the modules that import it. `tests/test_limits.py` finds a time limit
that stands elsewhere. The emulator, which is no part of a boot, has limits of its own.
"""
LIMITS_COLUMNS = """
| seconds | for what, and why | name | where it applies |
|---|---|---|---|
"""
LIMITS_SETTINGS = """
## Settings

The image's maker decides on these: [configuration.md](configuration.md).

| seconds | for what | setting |
|---|---|---|
"""


def render_limits() -> str:
    """Return docs/limits.md: one table for each part of the program, and the settings that are times."""
    document = LIMITS_HEAD
    source = Path("minprov/limits.py").read_text(encoding="utf-8")
    users = _users_of("minprov.limits")
    for part in re.split(r"^# -- (?=.* -+$)", source, flags=re.MULTILINE)[1:]:
        title, _, code = part.partition("\n")
        document += f"\n## {title.rstrip('- ')}\n{LIMITS_COLUMNS}"
        statements = ast.parse(code).body
        for assignment, text in zip(statements[::2], statements[1::2], strict=True):
            name = _name(assignment)
            where = ", ".join(f"`{user}`" for user in users[name])
            document += f"| {getattr(limits, name):g} | {_words(text)} | `{name}` | {where} |\n"
    rows = (
        f"| {schema.default(setting):g} | {setting.help} | `{key}` |\n"
        for schema in (CORE, *(schema_of(duty) for duty in DUTY_PAGES.values()))
        for key, setting in schema.settings.items()
        if isinstance(schema.default(setting), float)
    )
    return document + LIMITS_SETTINGS + "".join(rows)


def _name(statement: ast.stmt) -> str:
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
        raise TypeError(f"not a limit: {ast.unparse(statement)}")
    return statement.targets[0].id


def _words(statement: ast.stmt) -> str:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        raise TypeError(f"no text of a limit: {ast.unparse(statement)}")
    return str(statement.value.value)


def _users_of(module: str) -> dict[str, list[str]]:
    """Return, for each name of a module, which modules import it."""
    users: dict[str, list[str]] = defaultdict(list)
    for path in sorted(Path("minprov").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == module:
                for alias in node.names:
                    users[alias.name].append(".".join(path.with_suffix("").parts[1:]))
    return users


MAN_HEAD = rf"""\
.\" Made from the command line's parser by scripts/generate_docs.py: run `make docs`.
.TH MINPROV 8 "" "minprov {__version__}" "System administration"
.SH NAME
minprov \- provision a Linux VM on Azure at first boot, without an agent
.SH SYNOPSIS
.B minprov
[\fIoption\fR ...]
.br
.B minprov
\fIcommand\fR
[\fIoption\fR ...]
.SH DESCRIPTION
"""
MAN_DESCRIPTION = """\
minprov runs once, at first boot, as root. It reads the provisioning media and asks the instance metadata service and
WireServer at the same time, applies the properties that the VM was created with, reads each of them back, tells the
platform that the VM is ready, and exits. On a VM for which that was done it exits at once.
"""
MAN_FILES = {
    CONFIG_FILE: "Configuration, then the files in minprov.toml.d, in order of name. None is needed.",
    f"{DEFAULT_DIRECTORY}/report.json": "The last run's report.",
    f"{DEFAULT_DIRECTORY}/ovf-env.xml": "The provisioning document, its password redacted.",
    f"{DEFAULT_DIRECTORY}/custom-data": "customData, byte for byte.",
    f"{DEFAULT_DIRECTORY}/applied, {DEFAULT_DIRECTORY}/ready, {DEFAULT_DIRECTORY}/pool": "What was done for which VM.",
}


def render_man_page() -> str:
    """Return the manual page: the parser's own words, and what flags do not tell."""
    return "".join(
        (
            MAN_HEAD,
            _roff(MAN_DESCRIPTION),
            ".SH OPTIONS\n",
            *_man_groups(run.build_parser()),
            ".SH COMMANDS\n",
            *(_man_command(name, does) for name, does in COMMANDS.items()),
            ".SH EXIT STATUS\n",
            _man_terms(_exit_statuses()),
            ".SH FILES\n",
            _man_terms(MAN_FILES.items()),
        )
    )


def _man_command(name: str, does: str) -> str:
    groups = "".join(_man_groups(_subparsers()[name]))
    description = _subparsers()[name].description or f"{does[0].upper()}{does[1:]}."
    return f".SS minprov {_roff(name)}{_roff(description)}{groups}"


def _man_groups(parser: argparse.ArgumentParser) -> Iterable[str]:
    """Yield the options, those of a named group under its name."""
    # argparse has no public way to its groups; the first two are its own, for what is positional and for the rest.
    positional, options, *named = parser._action_groups
    own = [
        action
        for action in (*positional._group_actions, *options._group_actions)
        if action.dest != "help" and action.help != argparse.SUPPRESS
    ]
    yield _man_terms((_flag(action), str(action.help)) for action in own)
    for group in named:
        yield f".SS {_roff(str(group.title).capitalize())}" + _man_options(group)


def _subparsers() -> dict[str, argparse.ArgumentParser]:
    choices = next(action.choices for action in build_parser()._actions if isinstance(action.choices, dict))
    return cast("dict[str, argparse.ArgumentParser]", choices)


def _man_options(group: argparse._ArgumentGroup) -> str:
    return _man_terms((_flag(action), str(action.help)) for action in group._group_actions)


def _flag(action: argparse.Action) -> str:
    value = "|".join(action.choices) if action.choices else action.metavar
    return " ".join((*action.option_strings, *([] if action.nargs == 0 else [str(value)])))


def _exit_statuses() -> Iterable[tuple[str, str]]:
    yield f"{os.EX_OK}", "Done, or nothing to do."
    for status in sorted({reason.exit_status for reason in Reason}):
        phrases = "; ".join(reason.phrase for reason in Reason if reason.exit_status == status)
        yield f"{status} ({EXIT_STATUSES[status]})", f"{phrases}."


def _man_terms(terms: Iterable[tuple[str, str]]) -> str:
    return "".join(f".TP\n.B {_roff(term)}{_roff(meaning)}" for term, meaning in terms)


def _roff(text: str) -> str:
    """Return text as lines of roff; what is in backticks is bold."""
    escaped = text.strip().replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"`([^`]*)`", r"\\fB\1\\fR", escaped) + "\n"


COMPLETED_AS = {"PATH": shtab.FILE, "FILE": shtab.FILE, "DIR": shtab.DIRECTORY}


def render_completion(shell: str) -> str:
    """Return the completion of the command line for bash, zsh or fish."""
    parser = build_parser()
    commands = next(action.choices for action in parser._actions if isinstance(action.choices, dict))
    for action in itertools.chain(parser._actions, *(command._actions for command in commands.values())):
        if action.metavar in COMPLETED_AS:
            action.complete = COMPLETED_AS[action.metavar]  # type: ignore[attr-defined]  # how shtab is told
    return shtab.complete(parser, shell).rstrip() + "\n"


CHECK_PAGE = "docs/check.md"


def render_checks() -> str:
    """Return the page of `minprov check` with the table of all checks."""
    rows = [f"| `{check.id}` | {check.severity.value} | {check.requires} | {check.why} |" for check in CHECKS]
    head, mark, rest = Path(CHECK_PAGE).read_text(encoding="utf-8").partition("<!-- checks -->\n")
    end = rest[rest.index("<!-- end of checks -->") :]
    note = "<!-- Made from the code by scripts/generate_docs.py: change it there, then run `make docs`. -->\n"
    table = ["", "| check | severity | what an image must be | why |", "|---|---|---|---|", *rows, ""]
    return head + mark + note + "\n".join(table) + end


DUTY_PAGES = {
    "docs/certificates.md": "certificates",
    "docs/follow-up.md": "follow_up",
    "docs/hooks.md": "hooks",
    "docs/pooled.md": "wait_in_pool",
    "docs/resource-disk.md": "resource_disk",
}
DOCUMENTS: dict[str, Callable[[], str]] = {
    "docs/reasons.md": render_reasons,
    "docs/configuration.md": render_configuration,
    "docs/faults.md": render_faults,
    "docs/limits.md": render_limits,
    CHECK_PAGE: render_checks,
    **{path: partial(render_duty, duty, path) for path, duty in DUTY_PAGES.items()},
    "packaging/man/minprov.8": render_man_page,
    "packaging/completions/bash/minprov": partial(render_completion, "bash"),
    "packaging/completions/zsh/_minprov": partial(render_completion, "zsh"),
    "packaging/completions/fish/minprov.fish": partial(render_completion, "fish"),
}


def main() -> None:
    """Write every document."""
    for path, render in DOCUMENTS.items():
        Path(path).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
