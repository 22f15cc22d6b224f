"""What customData is, by its first bytes; and gzip's contents.

Pure. cloud-init, which would interpret it, goes by the same bytes: cloudinit/handlers/__init__.py, INCLUSION_TYPES_MAP.
"""

import zlib

GZIP = b"\x1f\x8b"
SCRIPT = "a script"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_DECODED = 8 << 20
"""Bytes that 64 KiB of customData may come to: an archive, but no bomb."""
# The first that fits counts, so the longer of two stands first.
FORMATS = (
    (b"#!", SCRIPT),
    (b"#cloud-config-archive", "#cloud-config-archive"),
    (b"#cloud-config-jsonp", "#cloud-config-jsonp"),
    (b"#cloud-config", "#cloud-config"),
    (b"#cloud-boothook", "#cloud-boothook"),
    (b"#include-once", "#include-once"),
    (b"#include", "#include"),
    (b"#part-handler", "#part-handler"),
    (b"## template: jinja", "a jinja template"),
    (BYTE_ORDER_MARK + b"#!", "a script behind a byte order mark"),
)
MIME = (b"content-type:", b"mime-version:")


def find_format(data: bytes) -> str | None:
    """Return what somebody may expect to be interpreted, or None for plain data."""
    for start, name in FORMATS:
        if data.startswith(start):
            return name
    return "MIME" if data[:64].lower().startswith(MIME) else None


def decode(data: bytes) -> bytes | None:
    """Return gzip's contents, or None where it is no gzip, is damaged, or is too large."""
    if not data.startswith(GZIP):
        return None
    decoded = b""
    try:
        while data.startswith(GZIP):  # several members count as one, RFC 1952 section 2.2
            member = zlib.decompressobj(wbits=31)
            decoded += member.decompress(data, MAX_DECODED + 1 - len(decoded))
            if len(decoded) > MAX_DECODED or not member.eof:
                return None
            data = member.unused_data
    except zlib.error:
        return None
    return decoded
