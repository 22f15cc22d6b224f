"""The way in: ``python -m minprov`` and the console script ``minprov``.

On every boot but the first there is nothing to do. That is found out here, before anything is imported that takes
longer than the answer. On the first boot somebody is made ready to tell the platform, before anything is imported that
may be broken.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from minprov.last_resort import LastResort, NoLastResort

# With these a run tells nobody, or is none.
TELLS_NOBODY = frozenset({"--dry-run", "--emulated", "--help", "-h", "--version"})
EX_SOFTWARE = 70  # os.EX_SOFTWARE


def main() -> NoReturn:
    """Run the command line and exit, at once: taking the interpreter down takes longer than all that is left to do."""
    gc.disable()  # nothing here lives long enough for a collection to pay, and imports alone would set off dozens
    status = 0
    if sys.argv[1:] or not _already_provisioned():
        status = _run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # it was closed, or nobody reads: no failure of the run
            stream.flush()
    os._exit(status)


def _already_provisioned() -> bool:
    from minprov.machine.identity import read_identity
    from minprov.machine.markers import DEFAULT_DIRECTORY, READY, holds

    uuid = read_identity().dmi_uuid
    return uuid is not None and holds(DEFAULT_DIRECTORY, READY, uuid)


def _run(argv: list[str]) -> int:
    last_resort = _last_resort(argv)
    try:
        from minprov.cli import run

        status = run(argv, last_resort)
    except Exception as defect:  # it cannot be loaded, or has a defect: the last resort tells when this process ends
        import traceback

        traceback.print_exc()
        last_resort.hand_over("unhandled exception", f"{type(defect).__name__}: {defect}"[:200])
        status = EX_SOFTWARE
    last_resort.end()
    return status


def _last_resort(argv: list[str]) -> LastResort | NoLastResort:
    """Make somebody ready to tell the platform, if this is a run that tells it."""
    from minprov.last_resort import LastResort, NoLastResort

    provisions = not argv or argv[0].startswith("-")
    if not provisions or os.geteuid() != 0 or not TELLS_NOBODY.isdisjoint(argv):
        return NoLastResort()
    known: dict[str, object] = {}
    if (url := _flag(argv, "--wireserver-url")) is not None:
        known["wireserver_url"] = url
    if (root := _flag(argv, "--root")) is not None:
        known["state_dir"] = _state_directory(root)
    return LastResort(**known)


def _state_directory(root: str) -> str | None:
    from minprov.machine.markers import DEFAULT_DIRECTORY
    from minprov.machine.paths import resolve_beneath

    try:
        return resolve_beneath(root, DEFAULT_DIRECTORY)
    except OSError:  # a loop of links
        return None


def _flag(argv: list[str], name: str) -> str | None:
    """Return a flag's value as it stands on the command line, before that can be parsed."""
    for index, word in enumerate(argv):
        if word == name:
            return next(iter(argv[index + 1 :]), None)
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


if __name__ == "__main__":
    main()
