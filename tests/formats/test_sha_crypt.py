from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minprov.formats.sha_crypt import ALPHABET, new_salt, sha256_crypt, sha512_crypt, verify
from minprov.model import Secret

# (salt, rounds, key, result) as published with the specification: https://www.akkadia.org/drepper/SHA-crypt.txt
PUBLISHED = [
    (
        "saltstring",
        None,
        "Hello world!",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    (
        "saltstringsaltstring",
        10000,
        "Hello world!",
        "$6$rounds=10000$saltstringsaltst$"
        "OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
    ),
    (
        "toolongsaltstring",
        5000,
        "This is just a test",
        "$6$rounds=5000$toolongsaltstrin$"
        "lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0",
    ),
    (
        "anotherlongsaltstring",
        1400,
        "a very much longer text to encrypt.  This one even stretches over morethan one line.",
        "$6$rounds=1400$anotherlongsalts$"
        "POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1",
    ),
    (
        "short",
        77777,
        "we have a short salt string but not a short password",
        "$6$rounds=77777$short$WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0",
    ),
    (
        "asaltof16chars..",
        123456,
        "a short string",
        "$6$rounds=123456$asaltof16chars..$"
        "BtCwjqMJGx5hrJhZywWvt0RLE8uZ4oPwcelCjmw2kSYu.Ec6ycULevoBK25fs2xXgMNrCzIMVcgEJAstJeonj1",
    ),
    (
        "roundstoolow",
        10,
        "the minimum number is still observed",
        "$6$rounds=1000$roundstoolow$"
        "kUMsbe306n21p9R.FRkW3IGn.S9NPN0x50YhH1xhLsPuWGsUSklZt58jaTfF4ZEQpyUNGc0dqbpBYYBaHHrsX.",
    ),
]


@pytest.mark.parametrize(("salt", "rounds", "key", "hashed"), PUBLISHED)
def test_published_vectors_hold(salt: str, rounds: int | None, key: str, hashed: str) -> None:
    assert sha512_crypt(Secret(key), salt, rounds) == hashed
    assert verify(Secret(key), hashed)
    assert not verify(Secret(key + "!"), hashed)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl as the other implementation")
@pytest.mark.parametrize(("crypt", "method"), [(sha512_crypt, "-6"), (sha256_crypt, "-5")])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200])
def test_openssl_agrees_at_the_edges_of_the_digest(
    crypt: Callable[[Secret, str], str], method: str, length: int
) -> None:
    key = ("pässwörd " * 25).encode()[:length].decode(errors="ignore")
    salt = new_salt()[: 1 + length % 16]
    openssl = subprocess.run(
        ["openssl", "passwd", method, "-stdin", "-salt", salt], input=key, capture_output=True, text=True, check=True
    )
    hashed = crypt(Secret(key), salt)
    assert hashed == openssl.stdout.strip()
    assert verify(Secret(key), hashed)
    assert not verify(Secret(key + "!"), hashed)


@settings(max_examples=25)
@given(st.text(st.characters(codec="utf-8"), max_size=511), st.text(st.sampled_from(ALPHABET), max_size=16))
def test_a_hash_verifies_the_password_it_was_made_of_and_no_other(key: str, salt: str) -> None:
    hashed = sha512_crypt(Secret(key), salt, 1000)
    assert verify(Secret(key), hashed)
    assert not verify(Secret(key + "x"), hashed)
    assert ":" not in hashed
    assert hashed.isascii()


HASHED = PUBLISHED[0][3]


@pytest.mark.parametrize(
    "field",
    [
        "",
        "*",
        "!",
        "x",
        "!" + HASHED,
        HASHED[:-1],
        HASHED + "\n",
        HASHED + ":",
        HASHED.replace("$6$", "$5$"),
        HASHED.replace("$6$", "$6$rounds=05000$"),
        HASHED.replace("$6$", "$6$rounds=9999999999$"),
    ],
)
def test_locked_empty_or_damaged_shadow_field_verifies_nothing(field: str) -> None:
    for key in ("", "*", "!", "Hello world!"):
        assert not verify(Secret(key), field)


def test_salts_use_the_whole_alphabet_and_do_not_repeat() -> None:
    salts = [new_salt() for _ in range(200)]
    assert len(set(salts)) == 200
    assert {len(salt) for salt in salts} == {16}
    # 3200 draws of 64: one that never comes up has odds of 1 to 10**20.
    assert set("".join(salts)) == set(ALPHABET)
    assert len(ALPHABET) == 64
