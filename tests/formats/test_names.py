from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.errors import ProvisioningError, Reason, excerpt
from minprov.formats.names import parse_hostname, parse_username

SUDOERS_WORDS = ["ALL", "Defaults", "Cmnd_Alias", "Cmd_Alias", "Host_Alias", "Runas_Alias", "User_Alias"]
LONGEST_LABEL = "a" * 63
LONGEST_NAME = "a" * 62 + ".b"


@pytest.mark.parametrize(
    "name",
    ["vm", "VM-01", "a", "7", "1234", "3com", "web.example.com", "a--b", "xn--bcher-kva", LONGEST_LABEL, LONGEST_NAME],
)
def test_hostname_of_rfc_1123_labels_is_kept_as_given(name: str) -> None:
    assert parse_hostname(name) == name


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "empty"),
        ("a" * 64, "labels"),  # fits the kernel, but no label may have 64
        ("a." * 32 + "b", "64"),
        ("-a", "labels"),
        ("a-", "labels"),
        ("a-.b", "labels"),
        ("a..b", "labels"),
        ("a.", "labels"),
        (".a", "labels"),
        ("my_vm", "labels"),
        ("a b", "labels"),
        ("vm\n", "labels"),
        ("vm\0", "labels"),
        ("bücher", "labels"),
        ("vm\N{FULLWIDTH DIGIT ONE}", "labels"),
        ("10.0.0.4", "IPv4"),
    ],
)
def test_bad_hostname_names_the_value_and_the_rule(name: str, rule: str) -> None:
    with pytest.raises(ProvisioningError) as failure:
        parse_hostname(name)
    assert failure.value.reason is Reason.INVALID_HOSTNAME
    assert rule in failure.value.data["rule"]
    assert failure.value.data["value"] == excerpt(name)


@pytest.mark.parametrize("name", ["azureuser", "Admin", "_svc", "a", "1st", "j.doe", "a-b", "x." * 16])
def test_plain_username_is_kept_as_given(name: str) -> None:
    assert parse_username(name) == name


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "empty"),
        ("a" * 33, "32"),
        ("-rf", "begins"),
        (".ssh", "begins"),
        (".", "begins"),
        ("..", "begins"),
        ("a/b", "begins"),
        ("../root", "begins"),
        ("a:b", "begins"),
        ("a b", "begins"),
        ("a\n", "begins"),
        ("a\0", "begins"),
        ("%wheel", "begins"),
        ("#0", "begins"),
        ("a=ALL", "begins"),
        ("vm$", "begins"),
        ("é", "begins"),
        ("\N{ARABIC-INDIC DIGIT ONE}", "begins"),
        ("0", "number"),
        ("1000", "number"),
        *((word, "sudoers") for word in SUDOERS_WORDS),
    ],
)
def test_bad_username_names_the_value_and_the_rule(name: str, rule: str) -> None:
    with pytest.raises(ProvisioningError) as failure:
        parse_username(name)
    assert failure.value.reason is Reason.INVALID_USERNAME
    assert rule in failure.value.data["rule"]
    assert failure.value.data["value"] == excerpt(name)


@given(st.text())
def test_any_hostname_is_returned_unchanged_or_refused(text: str) -> None:
    try:
        assert parse_hostname(text) == text
    except ProvisioningError as error:
        assert error.reason is Reason.INVALID_HOSTNAME


@given(st.from_regex(r"[A-Za-z0-9_.\n-]{0,34}", fullmatch=True))
def test_an_accepted_username_is_one_word_for_every_tool(text: str) -> None:
    try:
        name = parse_username(text)
    except ProvisioningError as error:
        assert error.reason is Reason.INVALID_USERNAME
    else:
        assert name == text
        assert name[0] not in ".-"
        assert not name.isdecimal()
        assert name.split() == [name]


@given(st.text(st.characters()))
def test_an_excerpt_is_short_printable_ascii(text: str) -> None:
    shown = excerpt(text)
    assert len(shown) <= 64
    assert shown.isascii()
    assert not shown or shown.isprintable()
