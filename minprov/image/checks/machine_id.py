"""Checks of the machine id: each VM makes its own, and systemd's first boot is told by it (machine-id(5))."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from minprov.image.findings import Check, Found, Severity, left_behind
from minprov.machine.provisioners import UNIT_DIRECTORIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.subject import Subject

MACHINE_ID = "/etc/machine-id"
DBUS_ID = "/var/lib/dbus/machine-id"
PRESETS = tuple(
    f"{directory}/systemd/system-preset/*.preset" for directory in ("/etc", "/usr/local/lib", "/usr/lib", "/lib")
)
STARTED_UNITS = (".service", ".socket", ".timer", ".path")
INSTALLED = r"^(Wanted|Required|Upheld)By="
SHOWN_UNITS = 5


def judge_machine_id(subject: Subject) -> Iterator[Found]:
    """Look for an id that all VMs of the image would share."""
    contents = (subject.tree.text(MACHINE_ID) or "").strip()
    if contents and contents != "uninitialized":
        yield left_behind(subject, "the image has a machine id", MACHINE_ID, 1)


def judge_presets(subject: Subject) -> Iterator[Found]:
    """Look for a first boot in systemd's sense, and name the units that it switches on, or minprov off."""
    if not subject.services.systemd:
        return
    contents = subject.tree.text(MACHINE_ID)
    if contents is not None and contents.strip() != "uninitialized":
        return
    enabled, disabled = _changed_by_presets(subject)
    state = "is not there" if contents is None else "says uninitialized"
    if enabled:
        more = f" and {len(enabled) - SHOWN_UNITS} more" if len(enabled) > SHOWN_UNITS else ""
        names = ", ".join(enabled[:SHOWN_UNITS])
        yield Found(f"the machine id {state}: the first boot enables {names}{more}, which are disabled", MACHINE_ID)
    if "minprov.service" in disabled:
        what = f"the machine id {state}: the first boot disables minprov.service by a preset"
        yield Found(what, MACHINE_ID, severity=Severity.FAILS)


def judge_dbus_id(subject: Subject) -> Iterator[Found]:
    """Look for a second machine id."""
    contents = subject.tree.text(DBUS_ID) if subject.tree.link(DBUS_ID) is None else None
    if contents:
        yield left_behind(subject, "D-Bus has a machine id of its own", DBUS_ID, 1)


def _changed_by_presets(subject: Subject) -> tuple[list[str], list[str]]:
    """Return the units that presets enable and that are disabled, and the other way round (systemd.preset(5))."""
    tree, services = subject.tree, subject.services
    by_name = {path.rpartition("/")[2]: path for path in reversed(tree.glob(*PRESETS))}
    rules = [line.split() for name in sorted(by_name) for _, line in tree.lines(by_name[name])]
    units = {
        name
        for directory in UNIT_DIRECTORIES
        if not directory.startswith("/run")
        for name in tree.names(directory)
        if name.endswith(STARTED_UNITS) and "@" not in name and tree.link(f"{directory}/{name}") is None
    }
    enabled, disabled = [], []
    for unit in sorted(units):
        path = services.unit(unit)
        if path is None or not tree.is_file(path) or not re.search(INSTALLED, tree.text(path) or "", re.MULTILINE):
            continue
        wanted = next((rule[0] for rule in rules if len(rule) > 1 and fnmatch.fnmatch(unit, rule[1])), "enable")
        starts = services.starts(unit) is not None
        if wanted == "enable" and not starts and not services.is_masked(unit):
            enabled.append(unit)
        elif wanted == "disable" and starts:
            disabled.append(unit)
    return enabled, disabled


CHECKS = (
    Check(
        "machine-id",
        Severity.FAILS,
        "/etc/machine-id is an empty file",
        "All VMs of the image would have one identity, and one DHCP client id, journal and set of keys made of it.",
        "machine-id(5)",
        judge_machine_id,
        "truncate -s 0 /etc/machine-id",
    ),
    Check(
        "first-boot-presets",
        Severity.RISK,
        "the first boot switches no unit on or off by presets",
        "Where the machine id is absent or uninitialized, systemd applies presets; without one it enables a unit.",
        "machine-id(5), systemd.preset(5)",
        judge_presets,
        "truncate -s 0 /etc/machine-id, which is no first boot; or end /etc/systemd/system-preset/99-none.preset with "
        "`disable *`.",
    ),
    Check(
        "dbus-id",
        Severity.RISK,
        "/var/lib/dbus/machine-id is absent or a link to /etc/machine-id",
        "D-Bus would have one id in all VMs, and another than the rest of the system.",
        "dbus-uuidgen(1)",
        judge_dbus_id,
        "ln -sf /etc/machine-id /var/lib/dbus/machine-id",
    ),
)
