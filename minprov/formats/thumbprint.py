"""The name that Azure has for a certificate: the SHA-1 of its DER, in upper case."""

from __future__ import annotations

import hashlib
import re

FORM = re.compile(r"[0-9A-F]{40}")


def thumbprint(certificate: bytes) -> str:
    """Return the name of a certificate."""
    return hashlib.sha1(certificate, usedforsecurity=False).hexdigest().upper()


def normalise_thumbprint(text: str) -> str | None:
    """Return the name in a text, which may have blanks, colons and small letters in it; None where it is no name."""
    name = "".join(text.split()).replace(":", "").upper()
    return name if FORM.fullmatch(name) else None
