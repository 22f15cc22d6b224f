"""What sudo says a user may do, read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.formats.sudo_listing import parse_listing

DEFAULTS = """Matching Defaults entries for azureuser on web-01:
    env_reset, targetpw, mail_badpass,
    secure_path=/usr/local/sbin\\:/usr/local/bin\\:/usr/sbin\\:/usr/bin\\:/sbin\\:/bin,
    use_pty, !targetpw, requiretty

"""


@pytest.mark.parametrize(
    ("entries", "everything", "no_password"),
    [
        ("(ALL : ALL) NOPASSWD: ALL", True, True),
        ("(ALL : ALL) ALL", True, False),
        ("(ALL) NOPASSWD: ALL\n    (ALL) ALL", True, False),
        ("(ALL) ALL\n    (root) NOPASSWD: ALL", True, True),
        ("(root) NOPASSWD: /bin/a, PASSWD: ALL", True, False),
        ("(root) NOPASSWD: /bin/a, ALL", True, True),
        ("(ALL) SETENV: NOPASSWD: ALL", True, True),
        ("(ALL) ROLE=r TYPE=t NOPASSWD: ALL", True, True),
        ("(bob) NOPASSWD: ALL", False, False),
        ("(ALL, !root) NOPASSWD: ALL", False, False),
        ("(ALL) NOPASSWD: ALL\n    (ALL) !ALL", False, False),
        ("(ALL) NOPASSWD: /bin/a,\n        /bin/b, ALL", True, True),
        ("(ALL) NOPASSWD: /bin/a", False, False),
    ],
)
def test_last_entry_about_everything_counts(entries: str, everything: bool, no_password: bool) -> None:
    listing = parse_listing(f"{DEFAULTS}User azureuser may run the following commands on web-01:\n    {entries}\n")
    assert (listing.everything, listing.no_password) == (everything, no_password)
    assert listing.is_on("requiretty")
    assert listing.mentions("targetpw")
    assert not listing.is_on("targetpw")
    assert not listing.mentions("rootpw")


def test_a_user_without_rules_may_nothing() -> None:
    assert not parse_listing("User azureuser is not allowed to run sudo on web-01.\n").everything


def test_no_password_is_asked_where_nobody_authenticates() -> None:
    printed = (
        "Matching Defaults entries for a on b:\n    !authenticate\n\nUser a may run the following commands on b:\n"
    )
    assert parse_listing(f"{printed}    (ALL) ALL\n").no_password
    assert not parse_listing(printed).no_password


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    parse_listing(f"{text} may run the following commands\n{text}")
