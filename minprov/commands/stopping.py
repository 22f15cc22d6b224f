"""Signals that end a command by an exception, so that its mounts and temporary files go."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def clear_up_when_stopped() -> None:
    """Have each signal to stop end the program so; one that is ignored, as under nohup(1), stays so."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for another in STOP_SIGNALS:  # which would cut the clearing up off
        signal.signal(another, lambda *_: None)
    raise SystemExit(128 + number)
