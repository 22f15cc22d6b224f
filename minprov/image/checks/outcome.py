"""Run the checks over a subject: what they find, and what they cannot tell."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from minprov.config import Options
from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.image.checks import (
    agents,
    disk,
    duties,
    kernel,
    leftovers,
    login,
    machine_id,
    messages,
    network,
    secure_boot,
)
from minprov.image.findings import Check, Finding, Found, Severity, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from minprov.image.subject import Subject

LEFTOVERS: tuple[Check, ...] = (*machine_id.CHECKS, *leftovers.CHECKS)
"""Of what a machine leaves behind in an image of it."""
CHECKS: tuple[Check, ...] = (
    *kernel.CHECKS,
    *secure_boot.CHECKS,
    *messages.CHECKS,
    *disk.CHECKS,
    *network.CHECKS,
    *login.CHECKS,
    *agents.CHECKS,
    *duties.CHECKS,
    *LEFTOVERS,
)
_ORDER = list(Severity)
MAX_FOUND = 1000
"""Of one check: a file may have a hundred thousand lines that are wrong."""


class Outcome(NamedTuple):
    """What all checks came to."""

    findings: tuple[Finding, ...]
    """What fails first, then risks and the rest."""
    passed: tuple[str, ...]
    """Ids of the checks that found nothing."""
    ignored: tuple[str, ...]

    @property
    def fails(self) -> bool:
        """Tell whether something keeps a VM from coming up."""
        return self.counts[Severity.FAILS] > 0

    @property
    def counts(self) -> Counter[Severity]:
        """Return how many findings there are of each severity."""
        return Counter(finding.severity for finding in self.findings)


def run_checks(
    subject: Subject, ignored: Collection[str] = (), progress: Callable[[float], None] = lambda share: None
) -> Outcome:
    """Return what the checks find, but for those that are ignored, here or by the system's own configuration.

    Raises:
        ProvisioningError: USAGE for an id that no check has.

    """
    known = {check.id for check in CHECKS}
    ignored = {*ignored, *_configured(subject)}
    if unknown := set(ignored) - known:
        raise ProvisioningError(Reason.USAGE, detail=f"no check is called {min(unknown)}", hint="see `check --list`")
    findings: list[Finding] = []
    passed = []
    for number, check in enumerate(CHECKS):
        progress(number / len(CHECKS))
        if check.id not in ignored:
            found = judge([check], subject)
            findings += found
            if not found:
                passed.append(check.id)
    findings.sort(key=lambda finding: _ORDER.index(finding.severity))
    return Outcome(tuple(findings), tuple(passed), tuple(sorted(ignored)))


def judge(checks: Iterable[Check], subject: Subject) -> list[Finding]:
    """Return what some checks find, each thing once."""
    return list(dict.fromkeys(finding for check in checks for finding in _judge(check, subject)))


def _configured(subject: Subject) -> tuple[str, ...]:
    try:
        options = subject.options
    except ProvisioningError:
        return ()
    return options.check_ignore if isinstance(options, Options) else ()


def _judge(check: Check, subject: Subject) -> Iterator[Finding]:
    """Yield what one check finds; what it could not read makes the rest of it unknown."""
    try:
        for number, found in enumerate(check.judge(subject), 1):
            yield _finding(check, found, subject)
            if number == MAX_FOUND:
                what = f"no more than {MAX_FOUND} findings were looked for"
                yield _finding(check, Found(what, severity=Severity.UNKNOWN, fix="Mend these first."), subject)
                return
    except ProvisioningError as error:
        what = f"not judged: {error.data.get('detail') or error.reason.phrase}"
        found = Found(what, error.data.get("path"), severity=Severity.UNKNOWN, fix=_way_to_know(error))
        yield _finding(check, found, subject)


def _finding(check: Check, found: Found, subject: Subject) -> Finding:
    fix = check.fix if isinstance(check.fix, str) else check.fix.get(subject.distribution.family) or check.fix["other"]
    return Finding(
        id=check.id,
        severity=found.severity or check.severity,
        what=printable(found.what),
        file=None if found.file is None else printable(found.file),
        line=found.line,
        value=None if found.value is None else printable(found.value),
        why=check.why,
        fix=fix if found.fix is None else found.fix,
        source=check.source,
    )


def _way_to_know(error: ProvisioningError) -> str:
    if error.reason is Reason.NOT_PERMITTED:
        return "Run the check as root, or as a user who may read the file."
    return error.data.get("hint") or "Look at it by hand."
