"""EFI programs, signed as those of distributions are, by authorities that are made here.

One of them stands for Microsoft's, whose private key nobody has: conftest.py puts its fingerprint among Microsoft's.
As in real loaders, that one's certificate is in the signature itself; a vendor's is not, shim has it.
"""

from __future__ import annotations

import atexit
import hashlib
import ssl
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

MICROSOFT = "Microsoft of the tests"
SECTOR = 512


def efi_program(sections: dict[str, bytes]) -> bytes:
    """Return a PE file with these sections, as sbsign takes it: aligned, with the sizes that its headers promise."""
    optional = bytearray(112 + 16 * 8)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<II", optional, 32, SECTOR, SECTOR)  # alignments in memory and in the file
    struct.pack_into("<I", optional, 108, 16)
    headers = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    start = len(headers) + 24 + len(optional) + 40 * len(sections)
    headers += struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, len(sections), 0, start, 0, len(optional), 0x22)
    strings = {name: b"" if len(name) <= 8 else name.encode() + b"\0" for name in sections}
    place = size_of_headers = _aligned(start + 4 + sum(map(len, strings.values())))
    table = names = body = b""
    for name, data in sections.items():
        size = _aligned(len(data))
        # The table of strings begins with its own length.
        short = f"/{4 + len(names)}" if strings[name] else name
        names += strings[name]
        table += struct.pack("<8sIIII16x", short.encode(), len(data), place, size, place)
        body += data.ljust(size, b"\0")
        place += size
    struct.pack_into("<II", optional, 56, place, size_of_headers)
    table += struct.pack("<I", 4 + len(names)) + names
    return (headers + optional + table).ljust(size_of_headers, b"\0") + body


def shim(vendor: str) -> bytes:
    """Return a loader that has a vendor's certificate."""
    certificate = der(vendor)
    return efi_program(
        {".text": b"code", ".vendor_cert": struct.pack("<IIII", len(certificate), 0, 16, 0) + certificate}
    )


def signed(program: bytes, authority: str) -> bytes:
    """Return a program with a signature by a key that an authority has certified."""
    directory = _authority(authority)
    unsigned, output = directory / "unsigned.efi", directory / "signed.efi"
    unsigned.write_bytes(program)
    argv = ["sbsign", "--key", str(directory / "key.pem"), "--cert", str(directory / "signer.pem")]
    argv += ["--addcert", str(directory / "ca.pem")] if authority == MICROSOFT else []
    subprocess.run([*argv, "--output", str(output), str(unsigned)], capture_output=True, check=True)
    return output.read_bytes()


def der(authority: str) -> bytes:
    """Return an authority's certificate."""
    return ssl.PEM_cert_to_DER_cert((_authority(authority) / "ca.pem").read_text())


def fingerprint(authority: str) -> str:
    return hashlib.sha256(der(authority)).hexdigest()


@cache
def _authority(name: str) -> Path:
    """Return where an authority's certificate and key are, and the certificate of its signer."""
    directory = Path(_kept().name) / hashlib.sha256(name.encode()).hexdigest()
    directory.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, check=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", "key.pem",
            "-out", "ca.pem")  # fmt: skip
    openssl("req", "-new", "-key", "key.pem", "-subj", f"/CN={name}: signer", "-out", "signer.csr")
    openssl("x509", "-req", "-in", "signer.csr", "-CA", "ca.pem", "-CAkey", "key.pem", "-days", "2", "-out",
            "signer.pem")  # fmt: skip
    return directory


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    directory = tempfile.TemporaryDirectory(prefix="authorities-")
    atexit.register(directory.cleanup)
    return directory


def _aligned(size: int) -> int:
    return -(-size // SECTOR) * SECTOR
