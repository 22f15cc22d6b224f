"""What a look at the system found.

Each module of this folder is one property, and has two coroutines for its action:

    inspect(system, action) -> Inspection    what is there now; changes nothing
    converge(system, action) -> None         bring it about; safe to run twice, and after a run that was killed

`inspect` serves three times: for the dry run, to leave alone what holds already, and as the read-back without which
Ready is not reported. So a tool that lies is found out by the same code that would have found nothing to do.
"""

from minprov.definitions import NamedTuple


class Inspection(NamedTuple):
    """Whether the property holds, and what is there in a person's words.

    `holds` is None where the present state cannot be seen, as a dry run without privileges cannot see passwords.
    """

    holds: bool | None
    present: str
    verified: bool = True
    """Whether who decides at a login was asked; not so where the system lacks the program."""
    notes: tuple[str, ...] = ()
    """What a reader should know although the property holds or can be made to, one sentence each."""
