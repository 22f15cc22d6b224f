"""Where a terminal is that moves its cursor and knows colours, and what is written there in colour."""

from __future__ import annotations

import os
from typing import TextIO

from minprov.definitions import Enum


class Colour(Enum):
    """What a piece of text means, by the colours that every terminal has (ECMA-48, SGR)."""

    GOOD = 32
    BAD = 31
    DOUBTFUL = 33


def is_terminal(stream: TextIO) -> bool:
    """Tell whether what reads the stream obeys control characters."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def coloured(text: str, colour: Colour, stream: TextIO) -> str:
    """Return the text in a colour, or as it is where the stream is no terminal or NO_COLOR is set (no-color.org)."""
    if os.environ.get("NO_COLOR") or not is_terminal(stream):
        return text
    return f"\x1b[{colour.value}m{text}\x1b[m"
