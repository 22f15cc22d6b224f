"""Plan what goes from a machine before an image is made of it: looks, and changes nothing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import find_fields
from minprov.image.checks import leftovers
from minprov.image.checks.machine_id import DBUS_ID
from minprov.image.deprovision.accounts import (
    OF_AN_ACCOUNT,
    has_processes,
    is_same,
    plan_accounts,
    plan_copies,
    plan_sudo_rules,
)
from minprov.image.deprovision.rules import ACCOUNT_COPIES, RULES, Act, Item, Phase
from minprov.image.deprovision.shutdown import find_directories, find_services, is_to_be_shut_down
from minprov.image.subject import Subject
from minprov.machine.files import file_error
from minprov.machine.journal import Journal
from minprov.machine.manifest import (
    ACCOUNT,
    FILE,
    GROUPS,
    KEYS,
    PASSWORD,
    Effect,
    Manifest,
    digest,
    merge,
)
from minprov.properties.password import SHADOW
from minprov.properties.withdrawal import NO_HOSTNAME, confirm, find_unrecorded

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from minprov.config import Options
    from minprov.image.tree import Tree
    from minprov.machine.system import System

HOSTNAME, HOSTS, RESOLVER = "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"
CERTIFICATES = "certificates.json"
WAAGENT_PROVISIONED = "/var/lib/waagent/provisioned"
IDS = (
    *dict.fromkeys(rule.id for rule in RULES),
    *("minprov", "user", "sudo-rules", "hostname", "hosts", "resolver", "root-password"),
)
"""What `--keep` takes."""


class Plan(NamedTuple):
    """What goes, in its order, and what is to be said before."""

    items: tuple[Item, ...]
    warnings: tuple[str, ...]
    logged_in: tuple[str, ...]
    """Accounts that go and have processes."""


class Request(NamedTuple):
    """What was asked for."""

    user: bool = False
    keep: Collection[str] = ()
    without_manifest: bool = False
    certificates: str | None = None
    """The directory that certificates are put in, where the configuration names another one."""


def plan_deprovision(system: System, tree: Tree, options: Options, request: Request) -> Plan:
    """Plan it.

    Raises:
        ProvisioningError: USAGE for an id that is none; NOT_PROVISIONED for a system that nobody has provisioned;
            NOT_PERMITTED, WRITE_FAILED, IMAGE_UNREADABLE.

    """
    if unknown := set(request.keep) - set(IDS):
        raise ProvisioningError(
            Reason.USAGE, detail=f"nothing is called {min(unknown)}", hint=f"one of {', '.join(IDS)}"
        )
    manifest = _read_manifest(system, options)
    if manifest is None and not request.without_manifest and not _was_provisioned(tree, options):
        raise ProvisioningError(Reason.NOT_PROVISIONED, path=options.state_dir, hint="--without-manifest")
    effects = manifest.effects if manifest else find_unrecorded(system, (options.sudo_file, options.sshd_drop_in))
    removes = request.user and "user" not in request.keep
    made = {e.target: e for e in effects if removes and e.kind == ACCOUNT and is_same(system, e)}
    users = list(made)
    shut_down = system.live and is_to_be_shut_down()
    items = [
        *(_services(tree) if shut_down else ()),
        *_by_rules(tree, options),
        *(_directories(tree) if shut_down else ()),
        *_certificates(tree, options, request.certificates),
        *_by_manifest(system, options, effects, users),
        *_names(tree),
        *plan_accounts(system, made),
        *plan_sudo_rules(system, tree),
    ]
    covered = {item.target for item in items if item.act is Act.WITHDRAW}
    items = [
        item
        for item in items
        if item.id not in request.keep and (item.act is Act.WITHDRAW or item.target not in covered)
    ]
    if ACCOUNT_COPIES.id not in request.keep:
        items += plan_copies(tree, items)
    items.sort(key=lambda item: item.phase)
    logged_in = tuple(name for name in users if system.live and has_processes(system, name))
    return Plan(tuple(items), tuple(_warn(system, tree, effects, items, logged_in)), logged_in)


def _read_manifest(system: System, options: Options) -> Manifest | None:
    """Return the manifest, with what a run that was killed has done, and have the system note in its journal."""
    journal = system.journal = Journal(system.path(options.state_dir))
    try:
        journal.open(None)
    except OSError as error:
        raise file_error(error, options.state_dir) from error
    begun = [found for effect in journal.left_over if (found := confirm(system, effect))]
    if journal.manifest is None and not begun:
        return None
    return Manifest(None, merge(journal.manifest.effects if journal.manifest else (), begun))


def _was_provisioned(tree: Tree, options: Options) -> bool:
    return tree.exists(f"{options.state_dir}/applied") or tree.exists(WAAGENT_PROVISIONED)


def _by_rules(tree: Tree, options: Options) -> Iterator[Item]:
    seen: set[str] = set()
    for rule in RULES:
        for path in _paths(tree, [pattern.replace("{state}", options.state_dir) for pattern in rule.patterns]):
            if path in seen or any(path.startswith(f"{above}/") for above in seen):
                continue
            if rule.act is Act.EMPTY:
                found = tree.stat(path)
                if tree.link(path) is not None or not tree.is_file(path) or not (found and found.st_size):
                    continue
            if path == DBUS_ID and tree.link(path) is not None:
                continue
            seen.add(path)
            yield Item(rule.id, rule.phase, rule.act, path, rule.why)


def _services(tree: Tree) -> Iterator[Item]:
    for kept_as, target in find_services(tree):
        yield Item(kept_as, Phase.TRACES, Act.STOP, target, "would be written again at the shutdown")


def _directories(tree: Tree) -> Iterator[Item]:
    for kept_as, path in find_directories(tree):
        yield Item(kept_as, Phase.TRACES, Act.COVER, path, "would be written to again at the shutdown")


def _paths(tree: Tree, patterns: Collection[str]) -> Iterator[str]:
    for pattern in patterns:
        yield from tree.walk(pattern.removesuffix("/**")) if pattern.endswith("/**") else tree.glob(pattern)


def _by_manifest(
    system: System, options: Options, effects: Collection[Effect], users: Collection[str]
) -> Iterator[Item]:
    """Yield what can be withdrawn: what is still as minprov made it."""
    why = "minprov made it"
    made = {effect.target for effect in effects if effect.kind == ACCOUNT}
    for effect in effects:
        if effect.kind == FILE and effect.sha256 is None:
            continue
        if effect.kind in (FILE, *OF_AN_ACCOUNT) and confirm(system, effect) is None:
            continue
        if effect.kind == KEYS and system.read(effect.target) is None:
            continue
        if effect.kind in OF_AN_ACCOUNT and effect.target in users:
            continue
        if effect.kind == GROUPS and effect.target not in made and confirm(system, effect):
            yield Item("minprov", Phase.ACCESS, Act.LEAVE_GROUPS, effect.target, "minprov had it join", effect=effect)
        if effect.kind in (FILE, KEYS, *OF_AN_ACCOUNT):
            target = (
                f"{effect.target}'s {OF_AN_ACCOUNT[effect.kind]}" if effect.kind in OF_AN_ACCOUNT else effect.target
            )
            kept_as, phase = _id_of(effect, options)
            yield Item(kept_as, phase, Act.WITHDRAW, target, why, effect=effect)


def _id_of(effect: Effect, options: Options) -> tuple[str, Phase]:
    if effect.target.startswith(f"{options.state_dir}/"):
        return "documents", Phase.DOCUMENTS
    if effect.target == HOSTNAME:
        return "hostname", Phase.IDENTITY
    if effect.target == HOSTS:
        return "hosts", Phase.IDENTITY
    if effect.kind == KEYS:
        return "authorized-keys", Phase.ACCESS
    return ("host-keys" if effect.target.startswith("/etc/ssh/ssh_host_") else "minprov"), Phase.ACCESS


def _certificates(tree: Tree, options: Options, directory: str | None) -> Iterator[Item]:
    """Yield the files that are on record as put where others may be, too."""
    try:
        record = json.loads(tree.text(f"{options.state_dir}/{CERTIFICATES}") or "{}")
        names = [os.path.basename(str(name)) for name in record["files"]]
        pairs = [(str(path), str(sha256)) for path, sha256 in record.get("key_pairs", {}).items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    others = directory is not None and not directory.startswith(f"{options.state_dir}/")
    for path in (f"{directory}/{name}" for name in names if others):
        if tree.is_file(path):
            yield Item("certificates", Phase.ACCESS, Act.DELETE, path, "is this VM's")
    for path, sha256 in pairs:
        if _has(tree, path, sha256):
            yield Item("certificates", Phase.ACCESS, Act.DELETE, path, "is of a key pair of this VM's")


def _has(tree: Tree, path: str, sha256: str) -> bool:
    try:
        return digest(tree.read(path) or b"") == sha256
    except ProvisioningError:  # whoever made it what it is now, it is not what was written
        return False


def _names(tree: Tree) -> Iterator[Item]:
    """Yield the files that have names and addresses of this machine among other things."""
    subject = Subject(tree)
    name = (tree.text(HOSTNAME) or "").strip()
    lines = {found.line for found in leftovers.judge_hostname(subject)}
    if lines:
        kept = [line for number, line in enumerate((tree.text(HOSTS) or "").splitlines(True), 1) if number not in lines]
        contents = "".join(kept).encode()
        yield Item("hosts", Phase.IDENTITY, Act.REWRITE, HOSTS, f"{name} has an address of this machine", contents)
    if name and name != NO_HOSTNAME:
        contents = f"{NO_HOSTNAME}\n".encode()
        yield Item("hostname", Phase.IDENTITY, Act.REWRITE, HOSTNAME, "is the name of this machine", contents)
    if any(True for _ in leftovers.judge_resolver(subject)):
        yield Item("resolver", Phase.IDENTITY, Act.EMPTY, RESOLVER, "has name servers of this network")


def _warn(
    system: System, tree: Tree, effects: Collection[Effect], items: Collection[Item], logged_in: Collection[str]
) -> Iterator[str]:
    yield "deprovisioning is no guarantee against secrets that programs or people have put elsewhere"
    if system.live and tree.exists(os.path.dirname(WAAGENT_PROVISIONED)):
        yield "a waagent that runs writes its state again: stop it first"
    for name in logged_in:
        yield f"{name} is logged in: the session's account goes away, and with it every other login of this name"
    goes = {item.target for item in items if item.act in (Act.REMOVE_ACCOUNT, Act.LOCK)}
    goes |= {item.effect.target for item in items if item.effect and item.effect.kind == PASSWORD}
    for effect in effects:
        name = effect.target
        if effect.kind == ACCOUNT and not any(i.act is Act.REMOVE_ACCOUNT and i.target == name for i in items):
            yield f"{name} stays, with its home directory, and without keys and password: `--user` removes it"
    for effect in effects:
        if effect.kind == FILE and effect.sha256 and _is_changed(system, effect):
            yield f"{effect.target} was changed since minprov wrote it: it stays"
    for line in (tree.text(SHADOW) or "").splitlines():
        name = line.partition(":")[0]
        fields = find_fields(line, name)
        if name not in goes and fields and fields[1].startswith("$"):
            yield f"{name} has a password, the same in each VM: it stays"


def _is_changed(system: System, effect: Effect) -> bool:
    contents = system.read(effect.target)
    return contents is not None and digest(contents) not in (effect.sha256, effect.before)
