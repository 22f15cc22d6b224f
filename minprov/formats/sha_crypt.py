"""SHA-512-crypt and SHA-256-crypt: the hash of a password as /etc/shadow keeps it.

Pure, so that it is the same on every Python and libc and for any target root: the `crypt` module is gone
since Python 3.13, and asking libcrypt or openssl would mean the host's, with the secret in another process.

Specification: Ulrich Drepper, "Unix crypt using SHA-256 and SHA-512", https://www.akkadia.org/drepper/SHA-crypt.txt;
"step n" below is its numbering.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minprov.formats.sha2 import sha256, sha512

if TYPE_CHECKING:
    from minprov.model import Secret

Hashing = Callable[[bytes], Any]

ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SHADOW_FIELD = r"\$([56])\$(?:rounds=([1-9][0-9]{0,8})\$)?([^$:\n]{0,16})\$(?:[./0-9A-Za-z]{43}){1,2}"

SALT_LENGTH = 16
DEFAULT_ROUNDS = 5000
MIN_ROUNDS = 1000
MAX_ROUNDS = 999_999_999
MAX_VERIFIED_ROUNDS = 200_000
"""A field with more, which takes more than a second, is not verified: it is taken for another password's."""


def new_salt() -> str:
    """Return 16 random characters of crypt's alphabet, 96 bits."""
    return "".join(ALPHABET[byte & 63] for byte in os.urandom(SALT_LENGTH))


def sha512_crypt(secret: Secret, salt: str, rounds: int | None = None) -> str:
    """Return the shadow field ``$6$…`` for `secret`, as `_crypt` does."""
    return f"$6${_crypt(sha512, secret, salt, rounds)}"


def sha256_crypt(secret: Secret, salt: str, rounds: int | None = None) -> str:
    """Return the shadow field ``$5$…`` for `secret`, as `_crypt` does."""
    return f"$5${_crypt(sha256, secret, salt, rounds)}"


def _crypt(hashing: Hashing, secret: Secret, salt: str, rounds: int | None) -> str:
    """Return the shadow field without its method.

    The first 16 characters of the salt count. Without `rounds` there are 5000 and the field does not mention them;
    others are brought within the specification's bounds.
    """
    salt = salt[:SALT_LENGTH]
    parameter = ""
    if rounds is None:
        rounds = DEFAULT_ROUNDS
    else:
        rounds = min(max(rounds, MIN_ROUNDS), MAX_ROUNDS)
        parameter = f"rounds={rounds}$"
    digest = _digest(hashing, secret.reveal().encode(), salt.encode(), rounds)
    return f"{parameter}{salt}${_encode(digest)}"


def verify(secret: Secret, hashed: str) -> bool:
    """Tell whether a shadow field is the SHA-512- or SHA-256-crypt of `secret`; a locked or empty field is not."""
    match = re.fullmatch(SHADOW_FIELD, hashed)
    if match is None:
        return False
    method, rounds, salt = match.groups()
    if rounds and int(rounds) > MAX_VERIFIED_ROUNDS:
        return False
    crypt = sha512_crypt if method == "6" else sha256_crypt
    return crypt(secret, salt, int(rounds) if rounds else None) == hashed


def _digest(hashing: Hashing, key: bytes, salt: bytes, rounds: int) -> bytes:
    alternate = hashing(key + salt + key).digest()  # steps 4 to 8
    start = key + salt + _repeat(alternate, len(key))  # steps 1 to 3, 9, 10
    bits = len(key)
    while bits:  # step 11
        start += alternate if bits & 1 else key
        bits >>= 1
    digest = hashing(start).digest()  # step 12
    p = _repeat(hashing(key * len(key)).digest(), len(key))  # steps 13 to 16
    s = _repeat(hashing(salt * (16 + digest[0])).digest(), len(salt))  # steps 17 to 20

    # Step 21. Round n hashes the digest with p before it and something after it (n odd), or the reverse (n even), where
    # that something depends on n modulo 3 and 7. So the rounds repeat after 42 = 2 * 3 * 7 of them: build those once.
    cycle = []
    for n in range(42):
        something = (s if n % 3 else b"") + (p if n % 7 else b"")
        cycle.append((p + something, b"") if n & 1 else (b"", something + p))
    for _ in range(rounds // 42):
        for before, after in cycle:
            digest = hashing(before + digest + after).digest()
    for before, after in cycle[: rounds % 42]:
        digest = hashing(before + digest + after).digest()
    return bytes(digest)


def _repeat(digest: bytes, length: int) -> bytes:
    return (digest * (length // len(digest) + 1))[:length]


def _encode(digest: bytes) -> str:
    """Return crypt's own base64 of a digest: its own order of bytes and, within each group, of bits (step 22)."""
    if len(digest) == 64:
        groups = [(22 * n % 63, (22 * n + 21) % 63, (22 * n + 42) % 63) for n in range(21)]
        last = _digits(digest[63], 2)
    else:
        groups = [(21 * n % 30, (21 * n + 10) % 30, (21 * n + 20) % 30) for n in range(10)]
        last = _digits(digest[31] << 8 | digest[30], 3)
    return "".join(_digits(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in groups) + last


def _digits(bits: int, count: int) -> str:
    return "".join(ALPHABET[bits >> 6 * place & 63] for place in range(count))
