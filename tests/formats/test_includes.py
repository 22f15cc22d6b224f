"""Configurations whose files include one another without end: sshd and sudo refuse them, nobody may hang on them."""

from __future__ import annotations

from minprov.formats import sshd_config, sudoers


def test_a_configuration_of_sshd_that_includes_itself_twice_has_an_end() -> None:
    text = "Port 22\nInclude /etc/ssh/sshd_config\nInclude /etc/ssh/sshd_config\n"
    lines = sshd_config.read_lines(lambda path: [(path, text)])
    assert [line.keyword for line in lines] == ["port"] * (sshd_config.MAX_DEPTH + 1)


def test_sudoers_that_include_themselves_twice_have_an_end() -> None:
    text = "root ALL=(ALL) ALL\n@include /etc/sudoers\n@include /etc/sudoers\n"
    lines = sudoers.read_lines(lambda _: text, lambda _: [])
    assert len(lines) == sudoers.MAX_DEPTH + 1


def test_aliases_of_aliases_are_resolved_once() -> None:
    last = 60
    aliases = [f"User_Alias A{number} = A{number + 1}, A{number + 1}" for number in range(last)]
    text = "\n".join([*aliases, f"User_Alias A{last} = azureuser, A0", "A0 ALL=(ALL) ALL", "A1 ALL=(ALL) ALL"])
    lines = sudoers.read_lines(lambda _: text, lambda _: [])
    assert [line.text for line in sudoers.rules_for(lines, "azureuser", 1000, [])] == [
        "A0 ALL=(ALL) ALL",
        "A1 ALL=(ALL) ALL",
    ]
    assert sudoers.rules_for(lines, "other", 1001, []) == []
