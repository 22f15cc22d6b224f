"""Which rule counts, and where it is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minprov.formats.sudoers import Line, find_default, includes, read_lines, rules_for

FILES = {
    "/etc/sudoers": r"""Defaults env_reset, \
  targetpw
@includedir /etc/sudoers.d
#include local
#1000 ALL=(ALL) /bin/a
""",
    "/etc/sudoers.d/10-a": """User_Alias OPS = bob, alice : NOT = ALL, !alice
OPS ALL=(ALL) ALL
# a remark
NOT ALL = ALL
""",
    "/etc/sudoers.d/20-b": "%wheel,  bob ALL=(ALL) ALL\nDefaults:alice !targetpw\n",
    "/etc/sudoers.d/b.conf": "alice ALL=ALL\n",
    "/etc/sudoers.d/b~": "alice ALL=ALL\n",
    "/etc/local": "@include /etc/local\nALL ALL=(ALL) NOPASSWD: /bin/b\n",
}


def lines_of(files: dict[str, str]) -> list[Line]:
    def list_directory(path: str) -> list[str]:
        return [name.removeprefix(f"{path}/") for name in files if name.startswith(f"{path}/")]

    return read_lines(files.get, list_directory)


@pytest.mark.parametrize(
    ("user", "uid", "groups", "places"),
    [
        ("alice", 1001, [], ["/etc/sudoers.d/10-a:2"]),
        ("bob", 1001, [], ["/etc/sudoers.d/10-a:2", "/etc/sudoers.d/10-a:4", "/etc/sudoers.d/20-b:1"]),
        ("eve", 1000, ["wheel"], ["/etc/sudoers.d/10-a:4", "/etc/sudoers.d/20-b:1", "/etc/sudoers:5"]),
    ],
)
def test_rules_for_a_user_come_in_order(user: str, uid: int, groups: list[str], places: list[str]) -> None:
    found = [line.place for line in rules_for(lines_of(FILES), user, uid, groups)]
    assert [place for place in found if not place.startswith("/etc/local")] == places


def test_default_is_found_where_it_is_switched_on() -> None:
    found = find_default(lines_of(FILES), "targetpw")
    assert found
    assert found.place == "/etc/sudoers:1"


def test_a_comment_behind_a_default_is_not_of_it() -> None:
    # As openSUSE ships it.
    lines = [Line("/etc/sudoers", 1, "Defaults targetpw   # ask for the password of the target user i.e. root")]
    assert find_default(lines, "targetpw") == lines[0]
    assert find_default(lines, "root") is None


def test_sudo_passes_over_names_with_a_dot() -> None:
    lines = lines_of(FILES)
    assert includes(lines, "/etc/sudoers.d/20-b")
    assert not includes(lines, "/etc/sudoers.d/b.conf")


def test_files_of_this_machine_are_read() -> None:
    def read(path: str) -> str | None:
        return Path(path).read_text() if os.access(path, os.R_OK) else None

    lines = read_lines(read, lambda path: os.listdir(path) if os.path.isdir(path) else [])
    assert all(line.number > 0 for line in lines)
