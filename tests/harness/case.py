"""A case: what machine it is, what the platform says and how it fails, how the program is called.

Read from ``case.toml``; what it leaves out has the default below. Keys are the fields' names with dashes. A case has
one run or, with ``[[again]]`` tables, several on the same machine: each key there replaces that of the run before, but
for `prepare` and `after`, which belong to one run. tests/cases/README.md has the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from minprov.emulator.faults import NO_FAULTS, Faults, parse_faults
from minprov.emulator.tables import content, convert_table, flag, number, read_table, seconds, text, text_table, texts
from minprov.emulator.vm import SAMPLE_VM, VM_CONVERTERS, VirtualMachine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from minprov.emulator.tables import Convert

MEDIA = ("none", "image", "sample", "directory", "ovf-env", "drive")
FIRMWARE = ("gen1", "gen1-swapped", "gen2", "none", "elsewhere")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One start of the program; tests/cases/README.md says what each field does."""

    arguments: tuple[str, ...] = ()
    json: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    shell: str | None = None
    config: str | None = None
    firmware: str = "gen2"
    media: str = "image"
    media_fails_at: int | None = None
    media_hangs_at: int | None = None
    media_cut_at: int | None = None
    hangs: tuple[str, ...] = ()
    vm: Mapping[str, Any] = field(default_factory=dict)
    media_vm: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    ovf_env: bytes | None = None
    ovf_env_replace: Mapping[str, str] = field(default_factory=dict)
    faults: Faults = NO_FAULTS
    interface_after: float = 0.0
    within: float | None = None
    inject: str | None = None
    prepare: str = ""
    after: str = ""

    @property
    def machine(self) -> VirtualMachine:
        """Return the VM that the platform believes in."""
        plain = VirtualMachine()
        return replace(SAMPLE_VM, **{name: getattr(plain, name) for name in self.without} | dict(self.vm))

    @property
    def machine_on_media(self) -> VirtualMachine:
        """Return the VM as the media describes it."""
        return replace(self.machine, **self.media_vm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The rule that the case holds, and its runs."""

    rule: str
    runs: tuple[Run, ...]
    like: str | None = None
    needs: str | None = None
    tools: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    unprivileged: bool = False
    tree: bool = False
    trace: bool = False


def load_case(directory: Path) -> Case:
    """Read a case from its folder.

    Raises: ProvisioningError(CONFIG_INVALID), naming the file and the key.
    """
    file = directory / "case.toml"
    return parse_case(read_table(file), file=file)


def parse_case(table: dict[str, object], *, file: Path) -> Case:
    """Return the case that a table describes; `file` is named in errors, and its folder has the files it refers to."""
    of_case = {key: value for key, value in table.items() if key in CASE_CONVERTERS}
    values = convert_table(of_case, CASE_CONVERTERS, file=file)
    runs = []
    changes: dict[str, object] = {key: value for key, value in table.items() if key not in CASE_CONVERTERS}
    again = cast("list[dict[str, object]]", changes.pop("again", []))
    settings: dict[str, object] = {}
    for step in [changes, *again]:
        settings = {key: value for key, value in settings.items() if key not in ("prepare", "after")} | step
        runs.append(_run(settings, file=file))
    return Case(runs=tuple(runs), **values)


def _run(table: dict[str, object], *, file: Path) -> Run:
    faults = cast("dict[str, object]", table.get("faults", {}))
    values = convert_table({key: value for key, value in table.items() if key != "faults"}, RUN_CONVERTERS, file=file)
    for name in ("vm", "media_vm"):
        if name in values:
            values[name] = convert_table(values[name], VM_CONVERTERS, file=file, within=f"{name}.")
    return Run(faults=parse_faults(faults, file=file), **values)


def _one_of(choices: tuple[str, ...]) -> Convert:
    def convert(value: object, directory: Path) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text(value, directory)

    return convert


def _table(value: object, _directory: Path) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError("must be a table")
    return value


def _interface(value: object, directory: Path) -> float:
    return math.inf if value == "never" else seconds(value, directory)


def _names(value: object, directory: Path) -> tuple[str, ...]:
    return tuple(name.replace("-", "_") for name in texts(value, directory))


CASE_CONVERTERS = {
    "rule": text,
    "like": text,
    "needs": text,
    "tools": texts,
    "libraries": texts,
    "unprivileged": flag,
    "tree": flag,
    "trace": flag,
}
RUN_CONVERTERS = {
    "arguments": texts,
    "json": flag,
    "environment": text_table,
    "user": text,
    "shell": text,
    "config": text,
    "firmware": _one_of(FIRMWARE),
    "media": _one_of(MEDIA),
    "media_fails_at": number,
    "media_hangs_at": number,
    "media_cut_at": number,
    "hangs": texts,
    "vm": _table,
    "media_vm": _table,
    "without": _names,
    "ovf_env": content,
    "ovf_env_replace": text_table,
    "interface_after": _interface,
    "within": seconds,
    "inject": text,
    "prepare": text,
    "after": text,
}
assert RUN_CONVERTERS.keys() | {"faults"} == {item.name for item in fields(Run)}
