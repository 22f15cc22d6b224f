"""What a look at the system found."""

from typing import NamedTuple


class Inspection(NamedTuple):
    """Whether the property holds, and what is there in a person's words.

    `holds` is None where the present state cannot be seen, as a dry run without privileges cannot see passwords.
    """

    holds: bool | None
    present: str
