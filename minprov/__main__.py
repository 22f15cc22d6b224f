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
STDERR = 2
EX_SOFTWARE, EX_OSERR = 70, 71  # os.EX_SOFTWARE, os.EX_OSERR
SHORTAGE = "too little memory, processes or open files"  # Reason.NO_RESOURCES.phrase
MODULE_SIZE = 1 << 17  # nearly all are smaller


def main() -> NoReturn:
    """Run the command line and exit, at once: taking the interpreter down takes longer than all that is left to do."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_streams()
    gc.disable()  # nothing here lives long enough for a collection to pay, and imports alone would set off dozens
    status = 0
    try:
        if sys.argv[1:] or not _already_provisioned():
            status = _run(sys.argv[1:])
    except MemoryError:  # while another one was being told
        status = EX_OSERR
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads, or there is no room: no failure of the run
            stream.flush()
    os._exit(status)


def _already_provisioned() -> bool:
    from minprov.machine.identity import read_identity
    from minprov.machine.markers import DEFAULT_DIRECTORY, READY, holds

    uuid = read_identity().dmi_uuid
    return uuid is not None and holds(DEFAULT_DIRECTORY, READY, uuid)


def _open_streams() -> None:
    """Put /dev/null in the place of streams that were closed: no file that is opened later must be taken for one."""
    with suppress(OSError):  # there is no /dev/null
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
            pass
        os.close(descriptor)
        sys.stdin, sys.stdout, sys.stderr = (
            stream or open(number, mode)  # noqa: SIM115  # as long as the process
            for number, (stream, mode) in enumerate(((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w")))
        )


def _run(argv: list[str]) -> int:
    last_resort = _last_resort(argv)
    try:
        from importlib.machinery import SourceFileLoader

        SourceFileLoader.get_data = _read_module  # type: ignore[assignment, method-assign]

        from minprov.cli import run

        status = run(argv, last_resort)
    except Exception as defect:  # it cannot be loaded, or has a defect: the last resort tells when this process ends
        status = _hand_over(defect, last_resort)
    last_resort.end()
    return status


def _read_module(_loader: object, path: str) -> bytes:
    """Read a module's file as `machine.files` does: by four system calls, where a file object takes nine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(descriptor, MODULE_SIZE):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def _hand_over(defect: Exception, last_resort: LastResort | NoLastResort) -> int:
    """Say what has ended the run, have it told by the last resort, and return the exit status."""
    phrase, detail, status = "unhandled exception", f"{type(defect).__name__}: {defect}"[:200], EX_SOFTWARE
    with suppress(Exception):  # it may be that nothing more can be loaded
        try:
            from minprov.errors import Reason
            from minprov.machine.shortage import find_shortage

            if shortage := find_shortage(defect):
                reason, detail = Reason.NO_RESOURCES, shortage
            elif isinstance(defect, ImportError):
                reason, detail = Reason.NOT_LOADED, str(defect)[:200]
            else:
                import traceback

                traceback.print_exc()
                reason = Reason.INTERNAL
            phrase, status = reason.phrase, reason.exit_status
            sys.stderr.write(f"minprov: {phrase}: {detail}\n{reason.action}\n")
        except MemoryError:  # of which there is too little to look into it
            phrase, detail, status = SHORTAGE, "not even for the reason", EX_OSERR
    last_resort.hand_over(phrase, detail)
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
        known["root"] = root
    try:
        return LastResort(**known)
    except OSError:  # no further process or pipe may be had: the run goes without
        return NoLastResort()


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
