"""What the parsers of all commands have in common."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from minprov.errors import ProvisioningError, Reason
from minprov.limits import MAX_SECONDS, MIN_SECONDS


class Parser(argparse.ArgumentParser):
    """A parser whose errors are `ProvisioningError`; a flag that is not given is not in the namespace."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  # as argparse's
        super().__init__(argument_default=argparse.SUPPRESS, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise USAGE in place of writing to stderr and exiting."""
        raise ProvisioningError(Reason.USAGE, detail=message, hint=f"see {self.prog} --help")


def seconds(text: str) -> float:
    """Convert a flag's value to seconds, within what the configuration may have."""
    value = float(text)
    if not MIN_SECONDS <= value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"expected seconds from {MIN_SECONDS:g} to {MAX_SECONDS:g}: {text!r}")
    return value
