"""The footer's fields, and what becomes of a footer that Azure would refuse."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.errors import ProvisioningError, Reason
from minprov.formats.vhd_footer import (
    EPOCH,
    MIN_DISK,
    SIZE,
    aligned,
    build_footer,
    checksum,
    parse_footer,
    violations,
)
from tests.mutations import mutations

MIB = 1 << 20
DISK = 30 * MIB
FOOTER = build_footer(DISK, uuid=bytes(range(16)), time=EPOCH + 86400)


def changed(layout: str, offset: int, value: int, *, seal: bool = True) -> bytes:
    """Return the good footer with another value, and the checksum that goes with it."""
    data = bytearray(FOOTER)
    struct.pack_into(layout, data, offset, value)
    if seal:
        struct.pack_into(">I", data, 64, checksum(bytes(data)))
    return bytes(data)


def test_a_footer_says_what_it_was_built_of() -> None:
    footer = parse_footer(FOOTER)
    assert (footer.current_size, footer.original_size, footer.type) == (DISK, DISK, 2)
    assert (footer.uuid, footer.time_stamp) == (bytes(range(16)), 86400)
    assert footer.checksum == ~(sum(FOOTER) - sum(FOOTER[64:68])) & 0xFFFFFFFF
    assert violations(FOOTER, DISK + SIZE) == []


@pytest.mark.parametrize(
    ("data", "field", "found", "wanted"),
    [
        (changed(">I", 8, 0), "features", "0x0", "0x2"),
        (changed(">I", 12, 0x20000), "version", "0x20000", "0x10000"),
        (changed(">Q", 16, 512), "data offset", "0x200", "0xffffffffffffffff"),
        (changed(">Q", 40, DISK - 1), "original size", str(DISK - 1), str(DISK)),
        (changed(">Q", 48, DISK + MIB), "current size", str(DISK + MIB), str(DISK)),
        (changed(">I", 60, 3), "disk type", "dynamic", "fixed"),
        (changed(">I", 60, 4), "disk type", "differencing", "fixed"),
        (changed(">I", 60, 9), "disk type", "unknown type 9", "fixed"),
        (changed(">I", 64, 1, seal=False), "checksum", "0x1", f"{checksum(FOOTER):#x}"),
        (changed(">B", 84, 1), "saved state", "1", "0"),
    ],
)
def test_a_field_that_azure_refuses_is_named(data: bytes, field: str, found: str, wanted: str) -> None:
    assert violations(data, DISK + SIZE) == [(field, found, wanted)]


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        (DISK + 1536, f"{DISK + MIB} bytes"),
        (19 * MIB, f"at least {MIN_DISK} bytes"),
    ],
)
def test_a_size_that_azure_refuses_is_named(size: int, wanted: str) -> None:
    footer = build_footer(size, uuid=bytes(16), time=0)
    assert [row.wanted for row in violations(footer, size + SIZE)] == [wanted]


@pytest.mark.parametrize(
    ("size", "disk"), [(0, MIN_DISK), (1, MIN_DISK), (DISK, DISK), (DISK + 1, DISK + MIB), (DISK + 1536, DISK + MIB)]
)
def test_a_disk_grows_to_what_azure_takes(size: int, disk: int) -> None:
    assert aligned(size) == disk


@given(st.integers(0, 1 << 60))
def test_a_disk_never_shrinks(size: int) -> None:
    assert size <= aligned(size) < max(MIN_DISK, size + MIB) + 1
    assert aligned(size) % MIB == 0


@given(st.binary() | mutations(FOOTER) | st.binary(min_size=504, max_size=504).map(b"conectix".__add__))
def test_any_bytes_give_violations_or_an_error(data: bytes) -> None:
    try:
        assert isinstance(violations(data, DISK + SIZE), list)
    except ProvisioningError as error:
        assert error.reason is Reason.IMAGE_INVALID
