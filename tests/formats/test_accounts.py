"""An account file is read as glibc reads it: what it finds, is found."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minprov.formats.accounts import (
    Account,
    existing_groups,
    find_account,
    find_password_field,
    groups_of,
    uid_max,
    uid_min,
)

NAME = "azureuser"
LIBC = ctypes.CDLL(None)


class Passwd(ctypes.Structure):
    """struct passwd of pwd.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("passwd", ctypes.c_char_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("gecos", ctypes.c_char_p),
        ("dir", ctypes.c_char_p),
        ("shell", ctypes.c_char_p),
    )


LIBC.fdopen.restype = ctypes.c_void_p
LIBC.fgetpwent.restype = ctypes.POINTER(Passwd)
LIBC.fgetpwent.argtypes = [ctypes.c_void_p]
LIBC.fclose.argtypes = [ctypes.c_void_p]


def found_by_glibc(passwd: str) -> Account | None:
    """Return the account as glibc's own reader finds it in a file with these contents."""
    descriptor = os.memfd_create("passwd")
    os.write(descriptor, passwd.encode(errors="surrogateescape"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    stream = LIBC.fdopen(descriptor, b"r")
    try:
        while entry := LIBC.fgetpwent(stream):
            line = entry.contents
            if os.fsdecode(line.name) == NAME:
                home = os.fsdecode(line.dir)
                return Account(NAME, line.uid, line.gid, home if home.startswith("/") else "/", os.fsdecode(line.shell))
        return None
    finally:
        LIBC.fclose(stream)


FIELD = st.text(st.sampled_from("0123456789+-x/ \t:#\r\x0b\x0c\x1c\x85\u2028é\udc80"), max_size=12)
LINE = st.one_of(
    FIELD,
    st.builds(
        lambda before, fields: before + ":".join([NAME, *fields]),
        st.sampled_from(["", "#", "+", "x"]),
        st.lists(st.one_of(FIELD, st.sampled_from(["0", "1000", "x", "/home/a"])), max_size=8),
    ),
)


@given(st.lists(LINE, max_size=4).map("\n".join))
@example(f"{NAME}:x:0:0")
@example(f"{NAME}:x:0:0:")
@example(f"{NAME}:x:1000:1000:A\u2028B:/home/a:/bin/sh")
@example(f"{NAME}:x:1000:1000:A\x85B\x1c:/home/a:/bin/sh:more")
@example(f"{NAME}:x:-1:99999999999999999999:::")
@example(f"{NAME}:x: 7:+8:::\n{NAME}:x:9:9:::")
def test_the_account_is_the_one_that_glibc_finds(passwd: str) -> None:
    assert find_account(passwd, NAME) == found_by_glibc(passwd)


def test_blanks_before_an_entry_are_passed_over() -> None:
    # glibc 2.36 moves such a line without its end (__nss_readline), so that the last field is not worth comparing.
    passwd = f" \t{NAME}:x:7:8::/home/a:/bin/sh"
    account, theirs = find_account(passwd, NAME), found_by_glibc(passwd)
    assert account
    assert theirs
    assert account[:4] == theirs[:4] == (NAME, 7, 8, "/home/a")


@pytest.mark.parametrize("blank", ["\u2028", "\x85", "\x1c", "\x0b", "\r"])
def test_a_line_ends_at_a_newline_alone(blank: str) -> None:
    assert existing_groups(f"a{blank}b:x:1:\nc:x:2:") == {f"a{blank}b", "c"}
    assert groups_of(f"a:x:1:u{blank},{NAME}", NAME) == {"a"}
    assert find_password_field(f"x{blank}{NAME}:!:\n{NAME}:*:", NAME) == "*"


def test_no_account_is_found_in_no_file(tmp_path: Path) -> None:
    assert find_account("", NAME) is None
    assert find_password_field("", NAME) is None


@pytest.mark.parametrize(("value", "number"), [("500", 500), ("0x3e8", 1000), ("01750", 1000), ("0", 0)])
def test_a_number_of_login_defs_is_the_one_that_shadow_utils_reads(value: str, number: int) -> None:
    assert uid_min(f"UID_MIN {value}\n") == uid_max(f"UID_MAX\t{value} # comment\n") == number


@pytest.mark.parametrize("value", ["9" * 5000, "0x" + "f" * 5000, f"{1 << 64}", "-1", "1e3", "09", "\u0661", "x"])
def test_what_is_no_number_to_login_defs_leaves_the_default(value: str) -> None:
    assert uid_min(f"UID_MIN {value}") == 1000
    assert uid_max(f"UID_MAX {value}") == 60000
