"""Rules of TCP wrappers that close a service to every other machine."""

from __future__ import annotations

import pytest

from minprov.formats.hosts_access import find_closing_rule


@pytest.mark.parametrize(
    ("allow", "deny", "line"),
    [
        ("", "", None),
        ("", "ALL: PARANOID\n", None),
        ("", "# ALL: ALL\n\nsshd, in.ftpd : ALL\n", 3),
        ("", "ALL: ALL: spawn /bin/echo %h\n", 1),
        ("", "in.ftpd: \\\n ALL\nALL: \\\nALL\n", 3),
        ("", "ALL EXCEPT sshd: ALL\n", None),
        ("", "sshd: ALL EXCEPT 10.0.0.0/8\n", None),
        ("", "sshd: 192.0.2.0/255.255.255.0\n", None),
        ("sshd: ALL\n", "ALL: ALL\n", None),
        ("sshd: [2001:db8::]/32\n", "ALL: ALL\n", None),
        ("in.ftpd: ALL\n", "ALL: ALL\n", 1),
        ("sshd: localhost 127. [::1]\n", "ALL: ALL\n", 1),
        ("ALL: 127.0.0.1 10.\n", "ALL: ALL\n", None),
        ("sshd: 192.0.2.1: deny\nALL: ALL: DENY\n", "", 2),
        ("ALL: ALL: allow\nALL: ALL: deny\n", "", None),
        ("sshd\n:::\n", "ALL\n", None),
    ],
)
def test_a_rule_closes_a_service_to_all_others(allow: str, deny: str, line: int | None) -> None:
    rule = find_closing_rule(allow, deny, "sshd")
    assert (rule.number if rule else None) == line
