"""What becomes of whole PEM keys is in test_sshkeys; here is the DER reader by itself."""

from __future__ import annotations

import binascii
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.formats.pem import blob_from_certificate, blob_from_public_key, blob_from_rsa_public_key
from tests.mutations import mutations

DATA = Path(__file__).parents[1] / "data/ssh"


def der(name: str) -> bytes:
    return binascii.a2b_base64("".join((DATA / name).read_text().splitlines()[1:-1]))


ED25519 = der("ed25519.pem")


def test_ed25519_key_is_its_type_and_its_point() -> None:
    assert blob_from_public_key(ED25519) == b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + ED25519[-32:]


@pytest.mark.parametrize("length", [b"\x81\x2a", b"\x82\x00\x2a", b"\x84\x00\x00\x00\x2a"])
def test_long_form_of_a_length_is_read(length: bytes) -> None:
    assert ED25519[:2] == b"\x30\x2a"
    assert blob_from_public_key(b"\x30" + length + ED25519[2:]) == blob_from_public_key(ED25519)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "structure"),
        (b"\x31" + ED25519[1:], "structure"),
        (b"\x30", "cut short"),
        (b"\x30\x80" + ED25519[2:] + b"\0\0", "structure"),  # the indefinite form is BER
        (b"\x30\x2b" + ED25519[2:], "cut short"),
        (b"\x30\x84\xff\xff\xff\xff" + ED25519[2:], "cut short"),
        (b"\x30\xff" + b"\xff" * 200, "cut short"),
        (ED25519[:-1], "cut short"),
        (ED25519.replace(b"\x03\x21\x00", b"\x03\x21\x01"), "whole number of bytes"),
    ],
)
def test_what_is_no_der_key_is_refused_with_the_reason(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        blob_from_public_key(data)


SAMPLES = [der("ed25519.pem"), der("ecdsa-521.pem"), der("rsa-1024.rsa"), der("ecdsa-256.crt"), der("rsa-3072.v1.crt")]


@given(st.binary() | st.sampled_from(SAMPLES).flatmap(mutations))
def test_any_bytes_give_a_blob_or_a_value_error(data: bytes) -> None:
    for convert in (blob_from_public_key, blob_from_rsa_public_key, blob_from_certificate):
        try:
            assert len(convert(data)) <= len(data) + 64
        except ValueError:
            continue
