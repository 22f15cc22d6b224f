"""SHA-256 and SHA-512 in Python's own code: hashlib's would load OpenSSL for them, which takes longer and 3 MiB.

They are had as the `random` module has them. A Python for FIPS may be without.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import sha256, sha512
else:
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256, sha512
        else:
            from _sha256 import sha256
            from _sha512 import sha512
    except ImportError:
        from hashlib import sha256, sha512

__all__ = ["sha256", "sha512"]
