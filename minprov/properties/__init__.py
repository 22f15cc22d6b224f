"""One module per VM-create property: how it looks on a system, and how it is brought about.

Each has two coroutines for its action:

    inspect(system, action) -> Inspection    what is there now; changes nothing
    converge(system, action) -> None         bring it about; safe to run twice, and after a run that was killed

`inspect` serves three times: for the dry run, to leave alone what holds already, and as the read-back without which
Ready is not reported. So a tool that lies is found out by the same code that would have found nothing to do.
"""
