"""sshd's configuration as text: which file and line a setting comes from, whom a Match block is for, sshd_config(5).

Pure: files come by a function that the caller brings. What is in force sshd itself tells (``sshd -T -C``), but not
where that is written: this finds it, for messages, and the connections for which the answer can differ.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from minprov.definitions import NamedTuple

CONFIG = "/etc/ssh/sshd_config"
DIRECTORY = "/etc/ssh"  # relative patterns of Include are below it
MAX_DEPTH = 16  # OpenSSH's servconf.c: SERVCONF_MAX_DEPTH
WORD = re.compile(r'"([^"]*)"|((?:[^\s"\\]|\\.)+)')
# Names that sshd takes for another one: the table in OpenSSH's servconf.c.
ALIASES = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "skeyauthentication": "kbdinteractiveauthentication",
    "dsaauthentication": "pubkeyauthentication",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "hostdsakey": "hostkey",
}
# Of these every line counts, wherever it stands; of all others the first that applies.
LISTS = frozenset({"allowusers", "denyusers", "allowgroups", "denygroups", "hostkey"})

Files = Callable[[str], Iterable[tuple[str, str]]]
"""Returns the path and the text of each file that a pattern matches, in order of name."""


class Connection(NamedTuple):
    """What sshd knows of a connection when it evaluates Match blocks: the words of its option -C."""

    user: str
    host: str
    addr: str
    laddr: str
    lport: str = "22"
    rdomain: str = ""

    def __str__(self) -> str:
        return ",".join(f"{word}={value}" for word, value in self._asdict().items())


class Line(NamedTuple):
    """A setting as it is written: its keyword in lower case, and the criteria of the Match block that it stands in."""

    file: str
    number: int
    keyword: str
    arguments: tuple[str, ...]
    match: tuple[tuple[str, str], ...] | None = None

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.file}:{self.number}"


def read_lines(files: Files, path: str = CONFIG) -> list[Line]:
    """Return all lines of the configuration, those of included files at the place of their Include.

    A file that includes itself, with which sshd does not start, is read once.
    """
    return list(_read(files, path, None, ()))


def find_line(lines: Sequence[Line], keyword: str, connection: Connection, groups: Iterable[str]) -> Line | None:
    """Return the line that decides on a setting for a connection: None where sshd's default is in force.

    The first line of a Match block that applies overrules the first one outside of them. Of settings that are lists it
    is the first line.
    """
    groups = set(groups)
    applicable = [
        line
        for line in lines
        if line.keyword == keyword and (line.match is None or applies(line.match, connection, groups))
    ]
    in_blocks = [line for line in applicable if line.match is not None]
    return next(iter([*in_blocks, *applicable]), None)


def applies(match: Sequence[tuple[str, str]], connection: Connection, groups: Iterable[str]) -> bool:
    """Tell whether a Match block is for a connection; an unknown criterion is taken as one that it is not for."""
    for criterion, patterns in match:
        if criterion in ("all", "final", "canonical"):
            continue
        if criterion == "group":
            holds = any(matches_list(group, patterns) for group in groups)
        elif criterion in ("address", "localaddress"):
            address = connection.addr if criterion == "address" else connection.laddr
            holds = matches_addresses(address, patterns)
        elif criterion in ("user", "host", "localport", "rdomain"):
            name = "lport" if criterion == "localport" else criterion
            holds = matches_list(getattr(connection, name), patterns)
        else:
            holds = False
        if not holds:
            return False
    return True


def matches(text: str, pattern: str) -> bool:
    """Tell whether a text matches a pattern with ``*`` and ``?``, ssh_config(5), PATTERNS."""
    pieces = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in re.sub(r"\*+", "*", pattern))
    return re.fullmatch("".join(pieces), text, re.DOTALL) is not None


def matches_list(text: str, patterns: str) -> bool:
    """Tell whether a text matches a list of patterns, and none of the negated ones."""
    return _matches_any(patterns, lambda pattern: matches(text, pattern))


def matches_addresses(address: str, patterns: str) -> bool:
    """Tell whether an address matches a list of patterns and networks, and none of the negated ones."""
    return _matches_any(patterns, lambda pattern: _is_in(address, pattern))


def connections_of(lines: Sequence[Line], base: Connection, groups: Iterable[str]) -> list[Connection]:
    """Return connections of a user such that each Match block is in force for one of them, and not for another.

    The first is the one from outside: `base`, with an address that no block names if there is one. Blocks for other
    users and groups are passed over.
    """
    groups = set(groups)
    blocks = list(dict.fromkeys(line.match for line in lines if line.match is not None))
    blocks = [block for block in blocks if _is_for_user(block, base.user, groups)]
    candidates = [base, *_variants(blocks, base)]
    found = [min(candidates, key=lambda connection: _count(blocks, connection, groups))]
    for block in blocks:
        inside = (connection for connection in candidates if applies(block, connection, groups))
        outside = (connection for connection in candidates if not applies(block, connection, groups))
        for connections in (inside, outside):
            some = list(connections)
            if some and not set(some) & set(found):
                found.append(some[0])
    return found


OUTSIDE = ("203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8::9", "127.0.0.1")  # RFC 5737, RFC 3849


def _count(blocks: Sequence[tuple[tuple[str, str], ...]], connection: Connection, groups: set[str]) -> int:
    return sum(applies(block, connection, groups) for block in blocks)


def _is_for_user(block: Sequence[tuple[str, str]], user: str, groups: set[str]) -> bool:
    for criterion, patterns in block:
        if criterion == "user" and not matches_list(user, patterns):
            return False
        if criterion == "group" and not any(matches_list(group, patterns) for group in groups):
            return False
    return True


def _variants(blocks: Sequence[Sequence[tuple[str, str]]], base: Connection) -> Iterator[Connection]:
    """Yield connections made after the examples that the blocks themselves give, alone and together."""
    for address in OUTSIDE:
        yield base._replace(addr=address, host=address)
    for block in blocks:
        of_block = base
        for criterion, patterns in block:
            for pattern in patterns.split(","):
                example = _example(criterion, pattern.removeprefix("!"))
                variant = base
                if criterion == "address" and example:
                    variant = base._replace(addr=example, host=example)
                elif criterion == "localaddress" and example:
                    variant = base._replace(laddr=example)
                elif criterion in ("host", "localport", "rdomain"):
                    variant = base._replace(**{"lport" if criterion == "localport" else criterion: example})
                yield variant
                if not pattern.startswith("!"):
                    changed = {name: value for name, value in variant._asdict().items() if value != getattr(base, name)}
                    of_block = of_block._replace(**changed)
        yield of_block


def _example(criterion: str, pattern: str) -> str:
    """Return something that matches a pattern."""
    if criterion in ("address", "localaddress"):
        try:
            network = ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            colon = ":" in pattern
            parts = pattern.split(":" if colon else ".")
            if not colon and parts[-1] == "*":
                parts += ["1"] * (4 - len(parts))
            text = (":" if colon else ".").join(part.replace("*", "1").replace("?", "1") for part in parts)
            return text if _is_address(text) else ""
        return str(network[1] if network.num_addresses > 1 else network[0])
    return pattern.replace("*", "1").replace("?", "1")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_in(address: str, pattern: str) -> bool:
    if "/" in pattern:
        try:
            return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return False
    return matches(address, pattern)


def _matches_any(patterns: str, matches_one: Callable[[str], bool]) -> bool:
    found = False
    for pattern in patterns.split(","):
        if matches_one(pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _read(
    files: Files, pattern: str, match: tuple[tuple[str, str], ...] | None, above: tuple[str, ...]
) -> Iterator[Line]:
    for path, text in files(pattern):
        if path in above or len(above) > MAX_DEPTH:
            continue
        block = match  # a Match block ends with its file
        for number, written in enumerate(text.splitlines(), 1):
            keyword, arguments = split_line(written)
            if keyword == "match":
                block = (*(match or ()), *_criteria(arguments))
            elif keyword == "include":
                for argument in arguments:
                    yield from _read(files, _absolute(argument), block, (*above, path))
            elif keyword:
                yield Line(path, number, ALIASES.get(keyword, keyword), arguments, block)


def _absolute(pattern: str) -> str:
    return pattern if pattern.startswith(("/", "~")) else f"{DIRECTORY}/{pattern}"


def split_line(line: str) -> tuple[str, tuple[str, ...]]:
    """Return the keyword in lower case, empty for none, and the arguments, which may be quoted."""
    found = re.match(r"[\s\f]*([A-Za-z0-9]+)(?:[ \t]*=[ \t]*|[ \t]+|$)(.*)", line)
    if found is None:
        return "", ()
    arguments = []
    for word in WORD.finditer(found[2]):
        if word[0].startswith("#"):
            break
        arguments.append(word[1] if word[1] is not None else word[2])
    return found[1].lower(), tuple(arguments)


def _criteria(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    waiting = [part for argument in arguments for part in argument.split("=", 1)]
    while waiting:
        criterion = waiting.pop(0).lower()
        single = criterion in ("all", "final", "canonical", "invalid-user")
        yield criterion, "" if single or not waiting else waiting.pop(0)
