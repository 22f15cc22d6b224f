"""The way in: ``python -m minprov`` and the console script ``minprov``.

On every boot but the first there is nothing to do. That is found out here, before anything is imported that takes
longer than the answer.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit, at once: taking the interpreter down takes longer than all that is left to do."""
    gc.disable()  # nothing here lives long enough for a collection to pay, and imports alone would set off dozens
    status = 0
    if sys.argv[1:] or not _already_provisioned():
        from minprov.cli import run

        status = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _already_provisioned() -> bool:
    from minprov.machine.identity import read_identity
    from minprov.machine.markers import DEFAULT_DIRECTORY, READY, holds

    uuid = read_identity().dmi_uuid
    return uuid is not None and holds(DEFAULT_DIRECTORY, READY, uuid)


if __name__ == "__main__":
    main()
