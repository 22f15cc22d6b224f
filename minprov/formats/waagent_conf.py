"""waagent.conf, as waagent reads it: azurelinuxagent/common/conf.py."""

from __future__ import annotations

from minprov.definitions import NamedTuple


class Entry(NamedTuple):
    """A key with its value, and the number of the line that counts."""

    key: str
    value: str | None
    """None where the file says ``None``, which is as if the key were not there."""
    line: int

    @property
    def on(self) -> bool:
        """Tell whether a switch is on: waagent takes any other word for the default."""
        return self.value is not None and self.value.lower() == "y"


def parse_waagent_conf(text: str) -> dict[str, Entry]:
    """Return the entries by key, in the order of the file; of a key's lines the last one counts.

    A comment begins in the first column, or at any ``#`` in a value.
    """
    entries: dict[str, Entry] = {}
    for number, line in enumerate(text.split("\n"), 1):
        key, sign, rest = line.partition("=")
        if sign and not line.startswith("#"):
            value = rest.partition("#")[0].strip('" ').strip()
            entries[key.strip()] = Entry(key.strip(), None if value == "None" else value, number)
    return entries
