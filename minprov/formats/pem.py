"""PEM public keys and certificates as SSH key blobs: DER in, RFC 4253 wire format out.

Pure. It reads no more of ASN.1 than the way to the key: definite lengths, one element after the other, no recursion.
What it makes is not judged here; `sshkeys` holds every blob to the same rules. A refusal is a ValueError that says why.

Sources: RFC 5280 §4.1 (certificate, SubjectPublicKeyInfo), RFC 8017 A.1.1 (RSAPublicKey), RFC 5480 (elliptic curves),
RFC 8410 (Ed25519), RFC 4253 §6.6, RFC 5656 §3.1 and RFC 8709 §4 (the blobs).
"""

from __future__ import annotations

INTEGER = 0x02
BIT_STRING = 0x03
OBJECT_IDENTIFIER = 0x06
SEQUENCE = 0x30
VERSION = 0xA0  # [0] EXPLICIT, the one optional element before a certificate's key

RSA = bytes.fromhex("2a864886f70d010101")  # 1.2.840.113549.1.1.1
EC = bytes.fromhex("2a8648ce3d0201")  # 1.2.840.10045.2.1
ED25519 = bytes.fromhex("2b6570")  # 1.3.101.112
DSA = bytes.fromhex("2a8648ce380401")  # 1.2.840.10040.4.1
CURVES = {
    bytes.fromhex("2a8648ce3d030107"): b"nistp256",  # 1.2.840.10045.3.1.7
    bytes.fromhex("2b81040022"): b"nistp384",  # 1.3.132.0.34
    bytes.fromhex("2b81040023"): b"nistp521",  # 1.3.132.0.35
}


def blob_from_certificate(der: bytes) -> bytes:
    """Return the key of an X.509 certificate. Nothing of the certificate is verified: only its key is meant."""
    to_be_signed = _Elements(_Elements(_Elements(der).take(SEQUENCE)).take(SEQUENCE))
    if to_be_signed.next_tag() == VERSION:
        to_be_signed.take(VERSION)
    to_be_signed.take(INTEGER)  # serialNumber
    for _ in ("signature", "issuer", "validity", "subject"):
        to_be_signed.take(SEQUENCE)
    return _blob_from_info(to_be_signed)


def blob_from_public_key(der: bytes) -> bytes:
    """Return the key of a SubjectPublicKeyInfo, the content of "BEGIN PUBLIC KEY"."""
    return _blob_from_info(_Elements(der))


def blob_from_rsa_public_key(der: bytes) -> bytes:
    """Return the key of an RSAPublicKey, the content of "BEGIN RSA PUBLIC KEY"."""
    numbers = _Elements(_Elements(der).take(SEQUENCE))
    modulus = numbers.take(INTEGER)
    exponent = numbers.take(INTEGER)
    # A DER INTEGER and an SSH mpint are the same bytes: two's complement, big endian, no longer than need be.
    return _blob(b"ssh-rsa", exponent, modulus)


def _blob_from_info(elements: _Elements) -> bytes:
    info = _Elements(elements.take(SEQUENCE))
    algorithm = _Elements(info.take(SEQUENCE))
    identifier = algorithm.take(OBJECT_IDENTIFIER)
    bits = info.take(BIT_STRING)
    key = bits[1:]
    if bits[:1] != b"\0":  # the count of unused bits
        raise ValueError("its key is not a whole number of bytes")
    if identifier == RSA:
        return blob_from_rsa_public_key(key)
    if identifier == ED25519:
        return _blob(b"ssh-ed25519", key)
    if identifier == EC:
        curve = CURVES.get(algorithm.take(OBJECT_IDENTIFIER))
        if curve is None:
            raise ValueError("its elliptic curve is not one that OpenSSH has")
        return _blob(b"ecdsa-sha2-" + curve, curve, key)
    if identifier == DSA:
        return _blob(b"ssh-dss")
    raise ValueError("its algorithm is not one that OpenSSH has")


def _blob(*strings: bytes) -> bytes:
    return b"".join(len(string).to_bytes(4) + string for string in strings)


class _Elements:
    """DER elements one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def next_tag(self) -> int | None:
        return self._data[self._at] if self._at < len(self._data) else None

    def take(self, tag: int) -> bytes:
        """Return the content of the next element, which must have this tag."""
        if self.next_tag() != tag:
            raise ValueError("it is not the ASN.1 structure its label says")
        length = int.from_bytes(self._data[self._at + 1 : self._at + 2])
        start = self._at + 2
        if length >= 0x80:  # the low bits tell how many bytes the length has
            start += length & 0x7F
            length = int.from_bytes(self._data[self._at + 2 : start])
        end = start + length
        if end > len(self._data):
            raise ValueError("it is cut short")
        self._at = end
        return self._data[start:end]
