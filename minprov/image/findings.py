"""The words of checking: a check is data and one function, what it finds has evidence, a reason and a fix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from minprov.definitions import Enum, NamedTuple

if TYPE_CHECKING:
    from minprov.image.subject import Subject

MAX_VALUE = 200
MAX_DIGITS = 10


class Severity(Enum):
    """What a finding means for a VM of the image."""

    FAILS = "fails"
    """It does not boot, or is not provisioned."""
    RISK = "risk"
    """It works on some sizes, or until something happens."""
    ADVICE = "advice"
    """It would be easier to support."""
    TOLD = "told"
    """Nothing is wrong; it is good to know."""
    UNKNOWN = "unknown"
    """It cannot be judged here."""


class Found(NamedTuple):
    """What a check's function saw: one sentence, and where."""

    what: str
    file: str | None = None
    line: int | None = None
    value: str | None = None
    severity: Severity | None = None
    """Where it is not the check's own."""
    fix: str | None = None
    """Where the check's own does not do."""


class Check(NamedTuple):
    """A requirement, why it is one and who says so; `judge` yields what contradicts it."""

    id: str
    severity: Severity
    requires: str
    why: str
    source: str
    judge: Callable[[Subject], Iterable[Found]]
    fix: str | Mapping[str, str] = ""
    """For all systems, or by family; that of ``other`` is for those that are not named."""


class Finding(NamedTuple):
    """What a check found."""

    id: str
    severity: Severity
    what: str
    file: str | None
    line: int | None
    value: str | None
    why: str
    fix: str
    source: str


def left_behind(subject: Subject, what: str, file: str, line: int | None = None) -> Found:
    """Return what must not be in an image; the running machine has a right to it, and it is told and no more."""
    return Found(what, file, line, severity=Severity.TOLD if subject.tree.live else None)


def number_of(text: str | None) -> int | None:
    """Return a decimal number; None of what is none, or longer than any that is meant (int() refuses 4,300 digits)."""
    return int(text) if text and text.isdecimal() and len(text) <= MAX_DIGITS else None


def printable(text: str) -> str:
    """Return a text of an image as it may go to a terminal: on one line, of bounded length, no control characters."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: MAX_VALUE + 1])
    return shown if len(shown) <= MAX_VALUE else shown[:MAX_VALUE] + "…"
