"""What checks found, as text for people, as a document, and as JUnit XML for CI."""

from __future__ import annotations

import html
import sys
import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError
from minprov.image.checks.outcome import CHECKS, Outcome
from minprov.image.findings import Finding, Severity, printable
from minprov.outcome.terminal import Colour, coloured

if TYPE_CHECKING:
    from minprov.image.subject import Subject

SCHEMA = "minprov/check/1"
WIDTH = 110
MAX_PLACES = 5
_HEADINGS = {
    Severity.FAILS: "Keeps a VM from coming up, or from being trusted",
    Severity.RISK: "Risks",
    Severity.ADVICE: "Advice",
    Severity.TOLD: "Good to know",
    Severity.UNKNOWN: "Could not be judged",
}
_COLOURS = {Severity.FAILS: Colour.BAD, Severity.RISK: Colour.DOUBTFUL}
_COUNTED = {
    Severity.FAILS: ("fails", "fail"),
    Severity.RISK: ("risk", "risks"),
    Severity.ADVICE: ("piece of advice", "pieces of advice"),
    Severity.TOLD: ("note", "notes"),
    Severity.UNKNOWN: ("unknown", "unknown"),
}


class Target(NamedTuple):
    """What was checked, in words."""

    kind: str
    """``machine``, ``tree`` or ``image``."""
    path: str
    system: str
    family: str
    kernels: tuple[str, ...]
    generations: tuple[str, ...] | None
    """Which of Azure's generations can start the disk; None without a disk."""


def describe(kind: str, path: str, subject: Subject) -> Target:
    """Return what is checked; what the image says of itself is made fit for a terminal."""
    kernels: tuple[str, ...] = ()
    with suppress(ProvisioningError):  # which the checks of kernels have told
        kernels = tuple(printable(kernel.release) for kernel in subject.kernels)
    generations = subject.disk.layout.generations if subject.disk else None
    distribution = subject.distribution
    return Target(kind, path, printable(distribution.name), distribution.family, kernels, generations)


def to_document(target: Target, outcome: Outcome) -> dict[str, Any]:
    """Return all of it as a document."""
    return {
        "schema": SCHEMA,
        "outcome": "fails" if outcome.fails else "passes",
        "target": target._asdict(),
        "findings": [finding._asdict() | {"severity": finding.severity.value} for finding in outcome.findings],
        "passed": list(outcome.passed),
        "ignored": list(outcome.ignored),
        "counts": {severity.value: outcome.counts[severity] for severity in Severity},
    }


def render(target: Target, outcome: Outcome) -> str:
    """Return all of it as text: what fails first, a count at the end."""
    kernels = f", kernel {', '.join(target.kernels)}" if target.kernels else ""
    lines = [f"{target.path}: {target.system}{kernels}"]
    if target.generations:
        lines.append(f"  starts as generation {' and '.join(name[1:] for name in target.generations)}")
    for severity, heading in _HEADINGS.items():
        groups: dict[tuple[str, str, str], list[Finding]] = {}
        for finding in outcome.findings:
            if finding.severity is severity:
                groups.setdefault((finding.id, finding.what, finding.fix), []).append(finding)
        if groups:
            if severity in _COLOURS:
                heading = coloured(heading, _COLOURS[severity], sys.stdout)
            lines += ["", heading, *(line for group in groups.values() for line in _paragraph(*group))]
    return "\n".join([*lines, "", _count(outcome)])


def render_list() -> str:
    """Return all checks with reason and source."""
    lines = []
    for check in CHECKS:
        lines.append(f"{check.id} ({check.severity.value}): {check.requires}")
        lines += [*_wrapped(check.why, "  "), f"  {check.source}"]
    return "\n".join(lines)


def to_junit(target: Target, outcome: Outcome) -> str:
    """Return a JUnit report: a test case for each check, failed where something fails, skipped where it is unknown."""
    cases = []
    for check in CHECKS:
        found = [finding for finding in outcome.findings if finding.id == check.id]
        name = f'<testcase classname="minprov.check" name="{check.id}"'
        inside = [_junit_element(finding) for finding in found]
        if check.id in outcome.ignored:
            inside = ['<skipped message="ignored"/>']
        cases.append(f"  {name}>{''.join(inside)}</testcase>" if inside else f"  {name}/>")
    failed = sum(any(f.id == check.id and f.severity is Severity.FAILS for f in outcome.findings) for check in CHECKS)
    head = f'<testsuite name="minprov check {html.escape(target.path)}" tests="{len(CHECKS)}" failures="{failed}">'
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', head, *cases, "</testsuite>", ""])


def _junit_element(finding: Finding) -> str:
    words = html.escape("\n".join(line.strip() for line in _paragraph(finding)))
    if finding.severity is Severity.FAILS:
        return f'<failure message="{html.escape(finding.what)}">{words}</failure>'
    if finding.severity is Severity.UNKNOWN:
        return f'<skipped message="{html.escape(finding.what)}"/>'
    return f"<system-out>{words}</system-out>"


def _paragraph(finding: Finding, *same: Finding) -> list[str]:
    """Return a finding, and where else the same was found."""
    lines = _wrapped(f"{finding.id}: {finding.what}", "  ", "    ")
    for one in (finding, *same[: MAX_PLACES - 1]):
        if one.file or one.value:
            lines += _wrapped(_place(one), "    ")
    if len(same) >= MAX_PLACES:
        lines.append(f"    … and in {len(same) - MAX_PLACES + 1} more places")
    lines += _wrapped(finding.why, "    ")
    if finding.fix:
        lines += _wrapped(f"Fix: {finding.fix}", "    ", "         ")
    return lines


def _place(finding: Finding) -> str:
    place = finding.file or ""
    if finding.line:
        place += f":{finding.line}"
    return ": ".join(part for part in (place, finding.value) if part)


def _wrapped(text: str, indent: str, further: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if further is None else further,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _count(outcome: Outcome) -> str:
    counts = outcome.counts
    words = [f"{counts[s]} {_COUNTED[s][counts[s] != 1]}" for s in Severity if counts[s]]
    return f"{', '.join(words) or 'nothing found'}; {len(outcome.passed)} of {len(CHECKS)} checks passed"
