"""sudoers that refer to themselves: sudo refuses them, and nobody may hang on them."""

from __future__ import annotations

from minprov.formats import sudoers


def test_sudoers_that_include_themselves_twice_are_read_once() -> None:
    text = "root ALL=(ALL) ALL\n@include /etc/sudoers\n@include /etc/sudoers\n"
    assert len(sudoers.read_lines(lambda _: text, lambda _: [])) == 1


def test_aliases_of_aliases_are_resolved_once() -> None:
    last = 60
    aliases = [f"User_Alias A{number} = A{number + 1}, A{number + 1}" for number in range(last)]
    rules = ["A0 ALL=(ALL) ALL", "A1 ALL=(ALL) ALL"]
    text = "\n".join([*aliases, f"User_Alias A{last} = azureuser, A0", *rules])
    lines = sudoers.read_lines(lambda _: text, lambda _: [])
    assert [line.text for line in sudoers.rules_for(lines, "azureuser", 1000, [])] == rules
    assert sudoers.rules_for(lines, "other", 1001, []) == []
