"""``minprov check --fix ID``: do what one check asks for, and check again."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from minprov.commands.logs import set_up_logging
from minprov.commands.output import print_text
from minprov.errors import ProvisioningError, Reason
from minprov.image.findings import printable
from minprov.image.fixes.fixing import find_fix, find_wrong, plan_fix
from minprov.image.fixes.steps import BACKUP, Act, carry_out
from minprov.image.subject import Subject
from minprov.image.tree import Tree
from minprov.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.findings import Finding
    from minprov.image.fixes.steps import Step

SCHEMA = "minprov/check-fix/1"
LEFT = 1
"""The exit status where the check still finds something, as without a fix."""


def fix(name: str, root: str, *, dry_run: bool, as_json: bool) -> int:
    """Plan, do, check again, and return the exit status.

    Raises:
        ProvisioningError: USAGE, NOT_PERMITTED, and those of the steps.

    """
    wanted = find_fix(name)
    if os.geteuid() != 0 and not dry_run:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="a fix needs root", hint="try --dry-run")
    set_up_logging("warning")
    system, subject = System(root, look_only=dry_run), Subject(Tree(root))
    steps = plan_fix(wanted, subject, system)
    left = find_wrong(wanted, subject)
    if not as_json:
        print_text(render_steps(steps))
    if dry_run:
        outcome = "planned" if steps else "nothing to do" if not left else "not fixed"
    else:
        asyncio.run(carry_out(system, steps))
        left = find_wrong(wanted, Subject(Tree(root)))
        outcome = "not fixed" if left else "fixed" if steps else "nothing to do"
    if as_json:
        print_text([json.dumps(to_document(name, root, outcome, steps, left), indent=2)])
    else:
        print_text(render_end(outcome, [] if outcome == "planned" else left))
    return LEFT if outcome == "not fixed" else os.EX_OK


def to_document(name: str, root: str, outcome: str, steps: list[Step], left: list[Finding]) -> dict[str, Any]:
    """Return what is planned, or was done, as a document; `findings` are those of the check at the end."""
    return {
        "schema": SCHEMA,
        "id": name,
        "root": root,
        "outcome": outcome,
        "steps": [{"action": step.act.value, "target": step.target, "why": step.why} for step in steps],
        "findings": [finding._asdict() | {"severity": finding.severity.value} for finding in left],
    }


def render_steps(steps: list[Step]) -> Iterator[str]:
    """Yield the plan's lines for people."""
    for step in steps:
        kept = "" if step.act is Act.RUN else f" ({'as' if step.act is Act.MOVE_ASIDE else 'backup:'} *{BACKUP})"
        yield f"{step.act.value:10}  {printable(step.target)}: {step.why}{kept}"


def render_end(outcome: str, left: list[Finding]) -> Iterator[str]:
    """Yield what came of it, and what is left to be done by hand."""
    yield outcome
    for finding in left:
        yield f"left: {f'{finding.file}: ' if finding.file else ''}{finding.what}"
        yield f"  Fix: {finding.fix}"
