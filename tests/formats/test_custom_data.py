"""customData by its first bytes, and what gzip has in it, within bounds."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.formats.custom_data import MAX_DECODED, decode, find_format


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"#!/bin/sh\n", "a script"),
        (b"\xef\xbb\xbf#!/bin/sh\n", "a script behind a byte order mark"),
        (b"#cloud-config\nusers: []\n", "#cloud-config"),
        (b"#cloud-config-archive\n", "#cloud-config-archive"),
        (b"#include-once https://example.org\n", "#include-once"),
        (b"## template: jinja\n#cloud-config\n", "a jinja template"),
        (b"Content-Type: multipart/mixed; boundary=x\n", "MIME"),
        (b"MIME-Version: 1.0\n", "MIME"),
        (b"name=value\n", None),
        (b"# a comment\n", None),
        (b"", None),
    ],
)
def test_a_format_is_told_by_its_first_bytes(data: bytes, name: str | None) -> None:
    assert find_format(data) == name


@given(st.binary(max_size=512), st.binary(max_size=512))
def test_gzip_of_several_members_is_decoded_whole(first: bytes, second: bytes) -> None:
    assert decode(gzip.compress(first) + gzip.compress(second)) == first + second


@given(st.binary(max_size=256))
def test_what_is_damaged_is_not_decoded(data: bytes) -> None:
    assert decode(b"\x1f\x8b" + data) is None or data.startswith(b"\x08")
    assert decode(gzip.compress(data)[:-1]) is None


def test_a_bomb_is_not_decoded() -> None:
    assert decode(gzip.compress(bytes(MAX_DECODED))) == bytes(MAX_DECODED)
    assert decode(gzip.compress(bytes(MAX_DECODED + 1))) is None
