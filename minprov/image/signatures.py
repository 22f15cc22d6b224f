"""Signatures of EFI programs: who made them, and whether they hold, which sbverify tells.

sbverify is a process of its own, is given the open file, and runs nothing of it. Two of its habits decide what it is
asked here (sbsigntools 0.9.4): with an authority's certificate in the signature itself, as in shim's, it accepts any
other authority as well; so that Microsoft's is told by its fingerprint. And it says by its words alone whether the
program was changed or the key is not known.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import struct
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

from minprov.definitions import Enum, NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.pe import parse_pe
from minprov.limits import SIGNATURE_LIMIT
from minprov.machine.tools import PATH, find_tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MICROSOFT = frozenset(
    (
        "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507",  # Microsoft Corporation UEFI CA 2011
        "f6124e34125bee3fe6d79a574eaa7b91c0e7bd9d929c1a321178efd611dad901",  # Microsoft UEFI CA 2023
    )
)
"""SHA-256 of the certificates that firmware has for loaders of other systems (Microsoft's Secure Boot key guidance)."""
MAX_CERTIFICATES = 1 << 16
MAX_SEQUENCES = 1000
MAX_PROGRAM = 512 << 20
_SEQUENCE = b"\x30\x82"  # of 256 bytes to 64 KiB, as each X.509 certificate is
_VENDOR = ".vendor_cert"
_VENDOR_TABLE = struct.Struct("<IIII")  # sizes of what is allowed and what is not, then their offsets (shim: cert.S)
_SIGNATURE_LIST = struct.Struct("<16sIII")  # UEFI 2.10 §32.4.1
_X509_LIST = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")
_OWNER = 16


class Program(NamedTuple):
    """An EFI program, as far as its start under Secure Boot goes."""

    signatures: bytes
    """Empty if it is not signed."""
    cut_off: bool
    """The file ends before its signatures do."""
    vendor: tuple[bytes, ...]
    """The certificates by which it starts others, in DER: shim has them."""

    @property
    def microsoft(self) -> list[bytes]:
        """Return Microsoft's certificates in the signatures."""
        return [der for der in _sequences(self.signatures) if hashlib.sha256(der).hexdigest() in MICROSOFT]


class Verdict(Enum):
    """What sbverify says of a signature."""

    HOLDS = "holds"
    CHANGED = "changed"
    """The program is not the one that was signed."""
    FOREIGN = "foreign"
    """None of the certificates is its signer's."""


def read_program(file: BinaryIO) -> Program | None:
    """Return what an EFI program's signatures are; None if the file is no such program."""

    def read(offset: int, length: int) -> bytes:
        return os.pread(file.fileno(), length, offset)

    pe = parse_pe(read)
    if pe is None:
        return None
    place, vendor = pe.certificates, pe.sections.get(_VENDOR)
    signatures = read(place.offset, min(place.size, MAX_CERTIFICATES)) if place else b""
    table = read(vendor.offset, min(vendor.size, MAX_CERTIFICATES)) if vendor else b""
    cut_off = place is not None and place.offset + place.size > os.fstat(file.fileno()).st_size
    return Program(signatures, cut_off, tuple(_vendor_certificates(table)))


def verify(file: BinaryIO, certificates: Iterable[bytes]) -> Verdict:
    """Return whether a program's signature holds, and is by one of the certificates, which are in DER.

    Raises:
        ProvisioningError: IMAGE_UNREADABLE if sbverify is not installed, does not end, or the file is too large.

    """
    sbverify = find_tool("sbverify")
    if sbverify is None:
        raise _unknown("sbverify is not installed")
    if os.fstat(file.fileno()).st_size > MAX_PROGRAM:
        raise _unknown(f"it is larger than {MAX_PROGRAM >> 20} MiB")
    argv, descriptors = [sbverify], [file.fileno()]
    with ExitStack() as stack:
        for der in certificates:
            pem = stack.enter_context(os.fdopen(os.memfd_create("certificate"), "wb", buffering=0))
            pem.write(ssl.DER_cert_to_PEM_cert(der).encode())
            argv += ["--cert", f"/proc/self/fd/{pem.fileno()}"]
            descriptors.append(pem.fileno())
        argv.append(f"/proc/self/fd/{file.fileno()}")
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PATH": PATH, "LANG": "C.UTF-8"},
                pass_fds=descriptors,
                timeout=SIGNATURE_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _unknown(f"sbverify: no answer after {SIGNATURE_LIMIT:g} s") from error
    if done.returncode == 0:
        return Verdict.HOLDS
    # A file that is cut off ends it by a signal.
    return Verdict.CHANGED if done.returncode < 0 or b"hash" in done.stderr.lower() else Verdict.FOREIGN


def _vendor_certificates(table: bytes) -> Iterator[bytes]:
    """Yield the certificates of shim's table: it has one, or a list as the firmware has them."""
    if len(table) < _VENDOR_TABLE.size:
        return
    size, _, offset, _ = _VENDOR_TABLE.unpack_from(table)
    allowed = table[offset : offset + size]
    if allowed.startswith(_SEQUENCE):
        yield allowed
        return
    while len(allowed) >= _SIGNATURE_LIST.size:
        kind, length, header, each = _SIGNATURE_LIST.unpack_from(allowed)
        if kind == _X509_LIST and each > _OWNER:
            for place in range(_SIGNATURE_LIST.size + header, min(length, len(allowed)) - each + 1, each):
                yield allowed[place + _OWNER : place + each]
        allowed = allowed[max(length, _SIGNATURE_LIST.size) :]


def _sequences(data: bytes) -> Iterator[bytes]:
    """Yield what may be a certificate, wherever it begins."""
    place = -1
    for _ in range(MAX_SEQUENCES):
        place = data.find(_SEQUENCE, place + 1)
        if place < 0:
            return
        yield data[place : place + 4 + int.from_bytes(data[place + 2 : place + 4])]


def _unknown(detail: str) -> ProvisioningError:
    return ProvisioningError(
        Reason.IMAGE_UNREADABLE,
        detail=f"whether the signatures hold is not known: {detail}",
        hint="Install sbverify where the check runs: sbsigntool (Debian), sbsigntools (Fedora, SUSE, Arch, Alpine).",
    )
