"""Plan what goes of accounts: those that minprov made, root's password, and what is left of accounts elsewhere."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from minprov.formats.accounts import find_account, find_fields, find_password_field, groups_of
from minprov.image.deprovision.rules import ACCOUNT_COPIES, COPIES, Act, Item, Phase
from minprov.machine.manifest import AGEING, PASSWORD, UNLOCKED
from minprov.properties.name_service import PASSWD
from minprov.properties.password import SHADOW
from minprov.properties.user import GROUP

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from minprov.image.tree import Tree
    from minprov.machine.manifest import Effect
    from minprov.machine.system import System

SUBORDINATE_IDS = ("/etc/subuid", "/etc/subgid")
OF_AN_ACCOUNT = {PASSWORD: "password", UNLOCKED: "lock", AGEING: "age"}
"""What of an account is withdrawn while it stays."""
SUDO_RULES = ("/etc/sudoers.d/waagent", "/etc/sudoers.d/90-cloud-init-users")
"""Other agents' files, of nothing but rules for the users that they made."""


def plan_accounts(system: System, made: Mapping[str, Effect]) -> Iterator[Item]:
    """Yield root's password, and the accounts that minprov made."""
    field = find_password_field(system.read_text(SHADOW), "root")
    if field is not None and not field.startswith(("*", "!")):
        yield Item("root-password", Phase.ACCESS, Act.LOCK, "root", "its password would be the same in each VM")
    why = "minprov made it; its home directory goes with it"
    for name, effect in made.items():
        yield Item("user", Phase.ACCESS, Act.REMOVE_ACCOUNT, name, why, effect=effect)


def plan_sudo_rules(system: System, tree: Tree) -> Iterator[Item]:
    """Yield files of rules none of which is for an account that is there yet."""
    accounts = system.read_text(PASSWD)
    why = "an administrator of the same name would have the rights of one that went"
    for path in SUDO_RULES:
        names = [line.split()[0] for _, line in tree.lines(path)]
        if names and not any(find_account(accounts, name) for name in names):
            yield Item("sudo-rules", Phase.ACCESS, Act.DELETE, path, why)


def plan_copies(tree: Tree, items: Collection[Item]) -> Iterator[Item]:
    """Yield the copies that account tools make when they do what is planned."""
    acts = (Act.LOCK, Act.LEAVE_GROUPS, Act.REMOVE_ACCOUNT)
    if any(item.act in acts or (item.effect and item.effect.kind in OF_AN_ACCOUNT) for item in items):
        rule = ACCOUNT_COPIES
        for path in COPIES:
            if not tree.exists(path):
                yield Item(rule.id, rule.phase, rule.act, path, rule.why)


def is_same(system: System, effect: Effect) -> bool:
    """Tell whether an account is the one that was made, or what a tool that was killed has left of it."""
    account = find_account(system.read_text(PASSWD), effect.target)
    if account is None:
        own = SUBORDINATE_IDS if effect.gid is not None else (*SUBORDINATE_IDS, GROUP)
        joined = groups_of(system.read_text(GROUP), effect.target)
        return bool(joined) or any(find_fields(system.read_text(path), effect.target) for path in (SHADOW, *own))
    return effect.uid in (None, account.uid)


def has_processes(system: System, name: str) -> bool:
    """Tell whether an account is logged in, or runs something."""
    account = find_account(system.read_text(PASSWD), name)
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdecimal() and account and os.stat(f"/proc/{entry}").st_uid == account.uid:
                return True
    return False
