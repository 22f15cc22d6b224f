"""What the platform delivered, as values: certificates with their names, and the keys that belong to them."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Iterator, Sequence

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError
from minprov.formats.ssh_keys import normalise_keys
from minprov.formats.thumbprint import thumbprint


class Item(NamedTuple):
    """A certificate or a private key (PKCS #8), in DER, and the public key that is in it."""

    der: bytes
    public: bytes

    def __repr__(self) -> str:
        return "Item(***)"


class Contents(NamedTuple):
    """All that was in a PKCS #12 file."""

    certificates: Sequence[Item]
    keys: Sequence[Item]

    def __repr__(self) -> str:
        return f"Contents({len(self.certificates)} certificates, {len(self.keys)} keys)"


def files_of(contents: Contents) -> Iterator[tuple[str, bytes]]:
    """Yield the files to write: ``THUMBPRINT.crt`` for each certificate, ``.prv`` where its key is there."""
    keys = {key.public: key.der for key in contents.keys}
    for certificate in contents.certificates:
        name = thumbprint(certificate.der)
        yield f"{name}.crt", encode_pem("CERTIFICATE", certificate.der)
        if certificate.public in keys:
            yield f"{name}.prv", encode_pem("PRIVATE KEY", keys[certificate.public])


def ssh_keys_of(contents: Contents) -> dict[str, str]:
    """Return the key of each certificate, by its thumbprint, as a line of authorized_keys(5), if sshd has such."""
    faults: list[ProvisioningError] = []
    return {
        thumbprint(certificate.der): key
        for certificate in contents.certificates
        for key in normalise_keys(encode_pem("CERTIFICATE", certificate.der).decode(), faults=faults)
    }


def keys_without_certificate(contents: Contents) -> int:
    """Return how many keys no certificate is there for: they have no name."""
    return len({key.public for key in contents.keys} - {item.public for item in contents.certificates})


def encode_pem(label: str, der: bytes) -> bytes:
    """Return DER as PEM (RFC 7468)."""
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()
