"""SHA-512-crypt: the hash of a password as /etc/shadow keeps it.

Pure, over hashlib, so that it is the same on every Python and libc and for any target root: the `crypt` module is gone
since Python 3.13, and asking libcrypt or openssl would mean the host's, with the secret in another process.

Specification: Ulrich Drepper, "Unix crypt using SHA-256 and SHA-512", https://www.akkadia.org/drepper/SHA-crypt.txt;
"step n" below is its numbering.
"""

from __future__ import annotations

import os
import re
from hashlib import sha512
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minprov.model import Secret

ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SHADOW_FIELD = re.compile(r"\$6\$(?:rounds=([1-9][0-9]{0,8})\$)?([^$:\n]{0,16})\$[./0-9A-Za-z]{86}")

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
    """Return the shadow field for `secret`.

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
    digest = _digest(secret.reveal().encode(), salt.encode(), rounds)
    return f"$6${parameter}{salt}${_encode(digest)}"


def verify(secret: Secret, hashed: str) -> bool:
    """Tell whether a shadow field is the SHA-512-crypt of `secret`; a locked or empty field is not."""
    match = SHADOW_FIELD.fullmatch(hashed)
    if match is None:
        return False
    rounds, salt = match.groups()
    if rounds and int(rounds) > MAX_VERIFIED_ROUNDS:
        return False
    return sha512_crypt(secret, salt, int(rounds) if rounds else None) == hashed


def _digest(key: bytes, salt: bytes, rounds: int) -> bytes:
    alternate = sha512(key + salt + key).digest()  # steps 4 to 8
    start = key + salt + _repeat(alternate, len(key))  # steps 1 to 3, 9, 10
    bits = len(key)
    while bits:  # step 11
        start += alternate if bits & 1 else key
        bits >>= 1
    digest = sha512(start).digest()  # step 12
    p = _repeat(sha512(key * len(key)).digest(), len(key))  # steps 13 to 16
    s = _repeat(sha512(salt * (16 + digest[0])).digest(), len(salt))  # steps 17 to 20

    # Step 21. Round n hashes the digest with p before it and something after it (n odd), or the reverse (n even), where
    # that something depends on n modulo 3 and 7. So the rounds repeat after 42 = 2 * 3 * 7 of them: build those once.
    cycle = []
    for n in range(42):
        something = (s if n % 3 else b"") + (p if n % 7 else b"")
        cycle.append((p + something, b"") if n & 1 else (b"", something + p))
    for _ in range(rounds // 42):
        for before, after in cycle:
            digest = sha512(before + digest + after).digest()
    for before, after in cycle[: rounds % 42]:
        digest = sha512(before + digest + after).digest()
    return digest


def _repeat(digest: bytes, length: int) -> bytes:
    return (digest * (length // len(digest) + 1))[:length]


def _encode(digest: bytes) -> str:
    """Return crypt's own base64 of a digest: its own order of bytes and, within each group, of bits (step 22)."""
    groups = [(digest[22 * n % 63], digest[(22 * n + 21) % 63], digest[(22 * n + 42) % 63]) for n in range(21)]
    text = "".join(_digits(a << 16 | b << 8 | c, 4) for a, b, c in groups)
    return text + _digits(digest[63], 2)


def _digits(bits: int, count: int) -> str:
    return "".join(ALPHABET[bits >> 6 * place & 63] for place in range(count))
