"""sudo's rules as text: which file and line grants a user something, or keeps him from it, sudoers(5).

Pure: files come by functions that the caller brings. What is in force sudo itself tells (``sudo -l -U``), but not where
that is written: this finds it, for messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from minprov.definitions import NamedTuple

SUDOERS = "/etc/sudoers"
MAX_DEPTH = 128  # sudo's own limit, MAX_SUDOERS_DEPTH
INCLUDE = re.compile(r'[@#](include|includedir)[ \t]+(?:"([^"]+)"|((?:[^\s\\]|\\.)+))')
ALIAS = re.compile(r"(?:User|Runas|Host|Cmnd|Cmd)_Alias\b")
DEFAULTS = re.compile(r"Defaults(?P<scope>[@:!>]\S*)?(?:\s+(?P<settings>.*))?")
ALIAS_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
"""What a rule takes for an alias, if there is one of that name, rather than for a user."""

Read = Callable[[str], str | None]
"""Returns the text of a file, None where there is none."""
ListDirectory = Callable[[str], Sequence[str]]
"""Returns the names in a directory, none where there is none."""


class Line(NamedTuple):
    """A line as it is written, with those that continue it: a rule, an alias or defaults."""

    file: str
    number: int
    text: str

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.file}:{self.number}"


def read_lines(read: Read, list_directory: ListDirectory, path: str = SUDOERS) -> list[Line]:
    """Return all lines in the order in which sudo reads them; of rules that apply to a user the last one counts.

    A file that includes itself, with which sudo does not work, is read once.
    """
    return list(_read(read, list_directory, path, ()))


def includes(lines: Sequence[Line], path: str) -> bool:
    """Tell whether sudo reads a file, which has at least one line."""
    return any(line.file == path for line in lines)


def is_read_from_directory(name: str) -> bool:
    """Tell whether sudo reads a file of that name in a directory that is included."""
    return "." not in name and not name.endswith("~")


def rules_for(lines: Sequence[Line], user: str, uid: int, groups: Sequence[str]) -> list[Line]:
    """Return the rules that apply to a user, the one that counts last."""
    aliases = _aliases(lines)
    names = {user, f"#{uid}", "ALL", *(f"%{group}" for group in groups)}
    named: dict[str, bool] = {}
    return [line for line in lines if _is_rule(line) and _lists(_users_of(line), names, aliases, named)]


def find_default(lines: Sequence[Line], setting: str) -> Line | None:
    """Return the last line that switches a setting on, for whomever."""
    found = None
    for line in lines:
        match = DEFAULTS.fullmatch(line.text)
        settings = (match["settings"] or "") if match else ""
        if re.search(rf"(?:^|,)\s*{re.escape(setting)}\s*(?:,|$|=|#)", settings):
            found = line
    return found


def _read(read: Read, list_directory: ListDirectory, path: str, above: tuple[str, ...]) -> Iterator[Line]:
    text = read(path) if path not in above and len(above) <= MAX_DEPTH else None
    if text is None:
        return
    below = (*above, path)
    for number, written in _logical_lines(text):
        include = INCLUDE.match(written)
        if include is None:
            if written and not _is_comment(written):
                yield Line(path, number, written)
            continue
        target = (include[2] or re.sub(r"\\(.)", r"\1", include[3])).replace("%h", "")
        if not target.startswith("/"):
            target = f"{path.rpartition('/')[0]}/{target}"
        if include[1] == "include":
            yield from _read(read, list_directory, target, below)
            continue
        for name in sorted(list_directory(target)):
            if is_read_from_directory(name):
                yield from _read(read, list_directory, f"{target.rstrip('/')}/{name}", below)


def _is_comment(text: str) -> bool:
    """Tell a comment from a rule for a uid, ``#1000``."""
    return text.startswith("#") and not re.match(r"#-?\d", text)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    start, pending = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        start = start or number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            pending += line[:-1]
            continue
        yield start, (pending + line).strip()
        start, pending = 0, ""


def _is_rule(line: Line) -> bool:
    return not ALIAS.match(line.text) and not DEFAULTS.fullmatch(line.text)


def _users_of(line: Line) -> list[str]:
    """Return the user list of a rule, ``user, %group HOST = …``: the words up to the list of hosts."""
    left = line.text.partition("=")[0]
    words = re.sub(r"\s*,\s*", ",", left.strip()).split()
    return words[0].split(",") if words else []


def _aliases(lines: Sequence[Line]) -> dict[str, list[str]]:
    found = {}
    for line in lines:
        if line.text.startswith("User_Alias"):
            for definition in line.text.removeprefix("User_Alias").split(":"):
                name, _, members = definition.partition("=")
                found[name.strip()] = [member.strip() for member in members.split(",")]
    return found


def _lists(
    members: Sequence[str], names: set[str], aliases: Mapping[str, Sequence[str]], named: dict[str, bool]
) -> bool:
    """Tell whether a list of users names one; the last member that does counts, and may be negated.

    What is found out about an alias is kept: aliases of aliases would take a time without bound, those in a circle all.
    """
    found = False
    for member in members:
        word = member.lstrip("!").strip('"')
        negated = (len(member) - len(member.lstrip("!"))) % 2 == 1
        if word in aliases and word not in named:
            named[word] = False
            named[word] = _lists(aliases[word], names, aliases, named)
        if named.get(word, word in names):
            found = not negated
    return found
