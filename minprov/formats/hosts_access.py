"""Who may connect to a service by TCP wrappers: /etc/hosts.allow and /etc/hosts.deny, hosts_access(5).

Pure: texts in, a line out. Read only to find a service that is closed to everybody.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERYBODY = "ALL"
OURSELVES = re.compile(r"localhost|127\.[0-9./]*|\[::1\](/128)?", re.IGNORECASE)


class Rule(NamedTuple):
    """A line: the services and clients that it is about, and its options, hosts_options(5)."""

    services: list[str]
    clients: list[str]
    options: list[str]
    number: int
    text: str


def find_closing_rule(allow: str, deny: str, service: str) -> Rule | None:
    """Return the rule that closes a service to every other machine, or None; the first one for a client counts."""
    for rule in _rules(allow):
        if _names(rule.services, service):
            if "deny" in rule.options:
                if rule.clients == [EVERYBODY]:
                    return rule
            elif not all(map(OURSELVES.fullmatch, rule.clients)):
                return None
    closing = (rule for rule in _rules(deny) if _names(rule.services, service) and "allow" not in rule.options)
    return next((rule for rule in closing if rule.clients == [EVERYBODY]), None)


def _names(services: list[str], service: str) -> bool:
    at = services.index("EXCEPT") if "EXCEPT" in services else len(services)
    return not {service, EVERYBODY}.isdisjoint(services[:at]) and service not in services[at:]


def _rules(text: str) -> Iterator[Rule]:
    number = 1
    for line in text.replace("\\\n", "\0").split("\n"):
        fields = re.split(r":(?![^\[]*\])", line.replace("\0", " "))
        if len(fields) > 1 and not line.startswith("#"):
            services, clients = (re.split(r"[\s,]+", field.strip()) for field in fields[:2])
            options = [option.strip().lower() for option in fields[2:]]
            yield Rule(services, clients, options, number, line.replace("\0", " ").strip())
        number += 1 + line.count("\0")
