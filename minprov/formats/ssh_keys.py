"""SSH public keys: from whatever form a source delivers them in to lines that sshd accepts, and into a file of lines.

Pure. Every key becomes a blob, and every blob is held to what sshd would demand of it at login: a type that OpenSSH
accepts in authorized_keys, the parts of that type and no others, RSA of 1024 to 16384 bits, points on their curve.

Forms: OpenSSH lines (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"), RFC 4716 blocks, and PEM blocks (RFC 7468). IMDS has been
seen to wrap the base64 of a line with CRLF (cloud-init#3825) and to deliver X.509 certificates (cloud-init#6912).
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason, excerpt
from minprov.formats import pem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_CHARACTERS = 64 * 1024  # of one value: 20 of the longest RSA keys, 80 of the usual ones
LINE_BREAK = r"\r\n|\r|\n"
TYPE = r"(?:sk-)?(?:ssh|ecdsa)-[A-Za-z0-9@.-]+"
OPTION = r'[A-Za-z0-9-]++(?:="(?:\\"?+|[^"\\\x00-\x1f\x7f])*+")?+'
# OpenSSH's auth-options.c
SWITCHES = ("agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding")
OPTIONS = frozenset(
    {
        *SWITCHES,
        *(f"no-{name}" for name in SWITCHES),
        "cert-authority",
        "no-touch-required",
        "restrict",
        "verify-required",
    }
)
OPTIONS_WITH_VALUE = frozenset(
    {"command", "environment", "expiry-time", "from", "permitlisten", "permitopen", "principals", "tunnel"}
)
# Possessive quantifiers, so that a hostile line costs one pass; none around a group that captures, which Pythons before
# 3.11.5 fail to match (python/cpython#101955).
KEY_LINE = (
    rf"(?:(?!{TYPE}[ \t])(?P<options>{OPTION}(?:,{OPTION})*+)[ \t]++)?"
    rf"(?P<type>{TYPE})[ \t]+(?P<base64>[A-Za-z0-9+/]+={{0,2}})(?:[ \t]+(?P<comment>.*))?"
)
# A comment that holds a key: the base64 of every key begins with the length of its type's name.
JOINED_KEY = rf"(?<![^ \t]){TYPE}[ \t]+AAAA[A-Za-z0-9+/]{{20}}"
# Seen where a key went through a shell or a template: backslash and n, at the end of a line or before the next key.
ESCAPED_LINE_BREAK = rf"(?m:(?:\\r)?\\n(?=[ \t]*(?:$|\\|{TYPE}[ \t])))"
CONTINUATION = r"[A-Za-z0-9+/=]+(?P<comment>[ \t].*)?"
BEGIN = r"-----BEGIN (?P<pem>[A-Z0-9 ]+)-----|---- BEGIN (?P<rfc4716>[A-Z0-9 ]+) ----"

PEM_LABELS: dict[str, Callable[[bytes], bytes]] = {
    "PUBLIC KEY": pem.blob_from_public_key,
    "RSA PUBLIC KEY": pem.blob_from_rsa_public_key,
    "CERTIFICATE": pem.blob_from_certificate,
}
PRIVATE_KEY = "PRIVATE KEY"
PRIVATE = "it is a private key; give the public one, and replace this pair, which others may have seen by now"

RSA_MIN_BITS = 1024  # OpenSSH: SSH_RSA_MINIMUM_MODULUS_SIZE
RSA_MAX_BITS = 16384  # OpenSSL: OPENSSL_RSA_MAX_MODULUS_BITS
ED25519_BYTES = 32

# y² = x³ - 3x + b modulo p: (p, b), FIPS 186-4 D.1.2
CURVES = {
    b"nistp256": (
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    ),
    b"nistp384": (
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    ),
    b"nistp521": (
        2**521 - 1,
        int(
            "51953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109"
            "E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00",
            16,
        ),
    ),
}


def normalise_keys(
    text: str, where: str | None = None, *, faults: list[ProvisioningError] | None = None
) -> tuple[str, ...]:
    """Return the keys in `text`, each as one line of authorized_keys: options, type, base64, comment.

    What is no key is added to `faults` and passed over, where they are given.

    Raises:
        ProvisioningError: INVALID_SSH_KEY with `where`, the line, and what is wrong; never with the text itself, which
            may be a private key.
    """
    where = where and excerpt(where, 128)

    def refuse(problem: object, line: int | None = None, cause: Exception | None = None) -> None:
        fault = ProvisioningError(Reason.INVALID_SSH_KEY, where=where, line=line, detail=problem)
        if faults is None:
            raise fault from cause
        faults.append(fault)

    if len(text) > MAX_CHARACTERS:
        refuse(f"it has more than {MAX_CHARACTERS} characters")
        return ()
    text = text.removeprefix("\N{BYTE ORDER MARK}")
    if "\\n" in text:
        text = re.sub(ESCAPED_LINE_BREAK, "\n", text)
    lines = [line.strip() for line in re.split(LINE_BREAK, text)]
    keys: list[str] = []
    end = 0
    while end < len(lines):
        start = end
        end += 1
        if not lines[start] or lines[start].startswith("#"):
            continue
        try:
            if begin := re.fullmatch(BEGIN, lines[start]):
                end = _end_of_block(lines, start)
                keys.append(_from_block(begin["pem"] or begin["rfc4716"], lines[start + 1 : end - 1]))
            else:
                end = _end_of_line(lines, start)
                keys += _from_line("".join(lines[start:end]))
        except ValueError as error:
            refuse(error, start + 1, error)
    if sum("BEGIN CERTIFICATE" in line for line in lines) > 1:
        refuse("it holds several certificates, and which one's key is meant is not said")
        return ()
    return tuple(keys)


def merge_keys(existing: str, wanted: Sequence[str]) -> str:
    """Return an authorized_keys file with the `wanted` lines: what is there stays as it is, what is missing follows.

    A line is there if one with the same key and the same options is; comments do not count.
    """
    present = {_identity(line) for line in existing.split("\n")}
    missing = []
    for key in wanted:
        identity = _identity(key)
        if identity not in present:
            present.add(identity)
            missing.append(key + "\n")
    if not missing:
        return existing
    line_end = "" if not existing or existing.endswith("\n") else "\n"
    return existing + line_end + "".join(missing)


def contains_all(existing: str, wanted: Sequence[str]) -> bool:
    """Tell whether an authorized_keys file has all of the `wanted` lines, in the sense of `merge_keys`."""
    return merge_keys(existing, wanted) == existing


def rsa_bits(line: str) -> int | None:
    """Return the length of the RSA key on a line of authorized_keys, None for a key of another type."""
    match = re.fullmatch(KEY_LINE, line)
    if match is None or match["type"] != "ssh-rsa":
        return None
    *_, modulus = _strings(_decode(match["base64"]))
    return int.from_bytes(modulus).bit_length()


def _identity(line: str) -> tuple[str, str]:
    # sshd passes over no other blanks, such as one that does not break.
    match = re.fullmatch(KEY_LINE, line.strip(" \t\r"))
    return (match["options"] or "", match["base64"]) if match else ("", line)


def _end_of_line(lines: list[str], start: int) -> int:
    """Return the index after a key's last line: bare base64 continues a key that has no comment yet."""
    end = start + 1
    piece = re.fullmatch(KEY_LINE, lines[start])
    while piece and piece["comment"] is None and end < len(lines) and not re.fullmatch(KEY_LINE, lines[end]):
        piece = re.fullmatch(CONTINUATION, lines[end])
        end += piece is not None
    return end


def _end_of_block(lines: list[str], start: int) -> int:
    if PRIVATE_KEY in lines[start]:
        raise ValueError(PRIVATE)
    try:
        return lines.index(lines[start].replace("BEGIN", "END", 1), start) + 1
    except ValueError:
        raise ValueError("the block that begins here has no end") from None


def _from_line(line: str) -> Iterator[str]:
    """Yield the key of a line, and those that were joined to it where a line break was lost."""
    match = re.fullmatch(KEY_LINE, line)
    if match is None:
        private = PRIVATE_KEY in line or line.startswith("PuTTY-User-Key-File")
        raise ValueError(PRIVATE if private else "it is not an OpenSSH public key")
    _check_options(match["options"] or "")
    blob = _decode(match["base64"])
    key_type = _type_of(blob)
    if key_type != match["type"]:
        raise ValueError(f"it says {excerpt(match['type'])}, but the key is {key_type}")
    comment = match["comment"] or ""
    joined = re.search(JOINED_KEY, comment) if " AAAA" in comment else None
    yield _line(blob, options=match["options"] or "", comment=comment[: joined.start()] if joined else comment)
    if joined:
        yield from _from_line(comment[joined.start() :])


def _check_options(options: str) -> None:
    """Refuse an option that sshd does not know: it passes over the whole line then."""
    for option in re.finditer(OPTION, options):
        name, equals, _ = option[0].lower().partition("=")
        if name not in (OPTIONS_WITH_VALUE if equals else OPTIONS):
            raise ValueError(f"sshd knows no option {excerpt(name)} {'with a value' if equals else 'without a value'}")


def _from_block(label: str, lines: list[str]) -> str:
    if label == "SSH2 PUBLIC KEY":
        return _from_rfc4716(lines)
    if label not in PEM_LABELS:
        raise ValueError(f"a block labelled {excerpt(label)} is not a public key")
    return _line(PEM_LABELS[label](_decode("".join(lines))))


def _from_rfc4716(lines: list[str]) -> str:
    comment = ""
    body = ""
    header = ""
    for line in lines:
        if header or ":" in line:
            header += line
            if header.endswith("\\"):
                header = header[:-1]
                continue
            name, _, value = header.partition(":")
            if name.lower() == "comment":
                comment = value.strip().removeprefix('"').removesuffix('"')
            header = ""
        else:
            body += line
    return _line(_decode(body), comment=comment)


def _line(blob: bytes, *, options: str = "", comment: str = "") -> str:
    base64 = binascii.b2a_base64(blob, newline=False).decode()
    shown = "".join(c if c.isprintable() else " " for c in comment).strip()
    return " ".join(part for part in (options, _type_of(blob), base64, shown) if part)


def _decode(base64: str) -> bytes:
    try:
        return binascii.a2b_base64(base64, strict_mode=True)
    except ValueError:
        raise ValueError("its base64 is damaged or incomplete") from None


def _type_of(blob: bytes) -> str:
    """Return the type that a blob names, if it is a key that OpenSSH accepts in authorized_keys.

    RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4; sk- types: OpenSSH's PROTOCOL.u2f.
    """
    strings = _strings(blob)
    key_type = next(strings, b"")
    if key_type == b"ssh-dss":
        raise ValueError("it is a DSA key, which OpenSSH no longer accepts")
    if key_type.endswith(b"-cert-v01@openssh.com"):
        raise ValueError("it is an OpenSSH certificate; authorized_keys takes the key of its authority")
    match [key_type, *strings]:
        case [b"ssh-rsa", exponent, modulus]:
            _check_rsa(exponent, modulus)
        case [b"ssh-ed25519", point]:
            _check_ed25519(point)
        case [_, curve, point] if curve in CURVES and key_type == b"ecdsa-sha2-" + curve:
            _check_ecdsa(curve, point)
        case [b"sk-ssh-ed25519@openssh.com", point, application] if 0 not in application:
            _check_ed25519(point)
        case [b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256" as curve, point, application] if 0 not in application:
            _check_ecdsa(curve, point)
        case _:
            name = excerpt(key_type.decode(errors="replace"))
            raise ValueError(f"it is not what OpenSSH accepts as a key of type {name}")
    return key_type.decode()


def _strings(blob: bytes) -> Iterator[bytes]:
    """Yield the strings of an SSH blob, each after its length (RFC 4251 §5)."""
    at = 0
    while at < len(blob):
        start = at + 4
        at = start + int.from_bytes(blob[at:start])
        if at > len(blob):
            raise ValueError("its data is cut short")
        yield blob[start:at]


def _check_rsa(exponent: bytes, modulus: bytes) -> None:
    # An mpint is negative if its first bit is set.
    if max(exponent[:1], modulus[:1]) >= b"\x80" or not any(exponent):
        raise ValueError("its RSA numbers are not positive")
    bits = int.from_bytes(modulus).bit_length()
    if not RSA_MIN_BITS <= bits <= RSA_MAX_BITS:
        raise ValueError(f"its RSA modulus has {bits} bits; OpenSSH accepts {RSA_MIN_BITS} to {RSA_MAX_BITS}")


def _check_ed25519(point: bytes) -> None:
    if len(point) != ED25519_BYTES:
        raise ValueError(f"its Ed25519 point has {len(point)} bytes instead of {ED25519_BYTES}")


def _check_ecdsa(curve: bytes, point: bytes) -> None:
    p, b = CURVES[curve]
    size = (p.bit_length() + 7) // 8
    x, y = int.from_bytes(point[1 : 1 + size]), int.from_bytes(point[1 + size :])
    if point[:1] != b"\x04" or len(point) != 1 + 2 * size:  # SEC 1 §2.3.3
        raise ValueError("its elliptic curve point is compressed or incomplete")
    if max(x, y) >= p or (y * y - x * x * x + 3 * x - b) % p:
        raise ValueError("its elliptic curve point is not on the curve")
