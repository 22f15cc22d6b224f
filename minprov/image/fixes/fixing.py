"""The checks that can be fixed, one by one; what a fix has not brought about the check says itself afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.image.checks.outcome import CHECKS, judge
from minprov.image.findings import Severity
from minprov.image.fixes import console, files
from minprov.image.fixes.steps import Fix

if TYPE_CHECKING:
    from minprov.image.findings import Finding
    from minprov.image.fixes.steps import Step
    from minprov.image.subject import Subject
    from minprov.machine.system import System

FIXES = (
    Fix("console", console.plan),
    Fix("initramfs-hyperv", files.plan_initramfs),
    Fix("nic-names", files.plan_nic_names),
    Fix("sudo-password", files.plan_sudo),
    Fix("vf", files.plan_vf),
)
WRONG = (Severity.FAILS, Severity.RISK, Severity.ADVICE)
REPLACEMENT = "\ufffd".encode()
"""What stands for bytes that are no text, and would be written in their place."""


def find_fix(name: str) -> Fix:
    """Return the fix of a check.

    Raises:
        ProvisioningError: USAGE if there is none.

    """
    for fix in FIXES:
        if fix.id == name:
            return fix
    raise ProvisioningError(
        Reason.USAGE, detail=f"nothing fixes {name} here", hint=f"one of {', '.join(fix.id for fix in FIXES)}"
    )


def plan_fix(fix: Fix, subject: Subject, system: System) -> list[Step]:
    """Return the steps; none where the check finds nothing."""
    steps = list(fix.plan(subject, system)) if find_wrong(fix, subject) else []
    return [] if any(REPLACEMENT in step.contents for step in steps) else steps


def find_wrong(fix: Fix, subject: Subject) -> list[Finding]:
    """Return what the check finds."""
    [check] = (check for check in CHECKS if check.id == fix.id)
    return [finding for finding in judge([check], subject) if finding.severity in WRONG]
