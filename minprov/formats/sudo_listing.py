"""What ``sudo -l -U USER`` prints: the defaults in force for a user, and what he may do. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from minprov.definitions import NamedTuple


class Listing(NamedTuple):
    """The defaults in order, whether the user may run everything as root, and whether no password is asked."""

    defaults: tuple[str, ...]
    everything: bool
    no_password: bool

    def is_on(self, flag: str) -> bool:
        """Tell whether a default is switched on: the last word on it counts."""
        return next((word == flag for word in reversed(self.defaults) if word.lstrip("!") == flag), False)

    def mentions(self, flag: str) -> bool:
        """Tell whether anything is said about a default."""
        return any(word.lstrip("!").partition("=")[0] == flag for word in self.defaults)

    def value(self, name: str) -> str | None:
        """Return what a default is set to, or None where nothing is said."""
        return next((word.partition("=")[2] for word in reversed(self.defaults) if word.startswith(f"{name}=")), None)


def parse_listing(printed: str) -> Listing:
    """Return what sudo, or sudo-rs, says; of entries that are about all commands the last one counts."""
    head, _, entries = printed.partition("may run the following commands")
    defaults = tuple(_defaults(head))
    everything = no_password = False
    for users, commands in _entries(entries):
        if not _is_root(users):
            continue
        asks = True
        for command in commands.split(", "):
            words = command.split()
            while words and (words[0].endswith(":") or "=" in words[0] or words[0].startswith("sha")):
                asks = {"NOPASSWD:": False, "PASSWD:": True}.get(words.pop(0), asks)
            left = " ".join(words)
            if left in ("ALL", "!ALL"):
                everything = left == "ALL"
                no_password = everything and not asks
    listing = Listing(defaults, everything, no_password)
    if listing.mentions("authenticate") and not listing.is_on("authenticate"):
        return listing._replace(no_password=everything)
    return listing


def _defaults(head: str) -> Iterator[str]:
    """Yield the words of the first paragraph, whose lines are broken where they are long."""
    _, colon, body = head.partition(":\n")
    if colon:
        paragraph = body.partition("\n\n")[0]
        yield from (word.strip() for word in " ".join(paragraph.split("\n")).split(","))


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Yield the users and the commands of each entry; a line that begins otherwise goes on with the one before."""
    lines: list[str] = []
    for line in text.splitlines()[1:]:
        if line.strip().startswith("("):
            lines.append(line.strip())
        elif lines:
            lines[-1] += f" {line.strip()}"
    for line in lines:
        users, parenthesis, commands = line[1:].partition(")")
        if parenthesis:
            yield users, commands


def _is_root(users: str) -> bool:
    """Tell whether a list of users to run as, ``user, user : groups``, has root in it."""
    names = [name.strip() for name in users.partition(":")[0].split(",")]
    return not {"!root", "!#0", "!ALL"} & set(names) and bool({"ALL", "root", "#0"} & set(names))
