"""What minprov gave the first VM of a captured disk, taken back before the second one is provisioned: docs/state.md.

Files go back to what they were, keys and sudo rule go, a password becomes ``*``. Account and home stay, with their
data: `deprovision --user` is for them. What somebody has changed since is left as it is, and told.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError
from minprov.formats.accounts import find_account, groups_of
from minprov.machine.manifest import (
    ACCOUNT,
    AGEING,
    FILE,
    GROUPS,
    KEYS,
    LOCKED,
    PASSWORD,
    UNLOCKED,
    Effect,
    Manifest,
    digest,
)
from minprov.properties import account_state
from minprov.properties.authorized_keys import remove_lines
from minprov.properties.hostname import FILE as HOSTNAME
from minprov.properties.name_service import PASSWD
from minprov.properties.password import SHADOW, stored_field
from minprov.properties.user import GROUP, set_password_field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from minprov.machine.system import System

logger = logging.getLogger(__name__)

WRITTEN = b"# Written by minprov"
"""What the files begin with that this program writes for other programs, since its first version."""
NO_HOSTNAME = "localhost"
WORDS = {
    FILE: "{}",
    PASSWORD: "the password of {}",
    KEYS: "the keys in {}",
    UNLOCKED: "the open lock of {}",
    AGEING: "the age of {}",
}
"""What can be withdrawn, as a reader is told of it."""


def confirm(system: System, effect: Effect) -> Effect | None:
    """Return an effect as it came about, or None for one that did not."""
    if effect.kind == FILE:
        contents = system.read(effect.target)
        return effect if (None if contents is None else digest(contents)) == effect.sha256 else None
    if effect.kind == ACCOUNT:
        account = find_account(system.read_text(PASSWD), effect.target)
        return effect._replace(uid=account.uid) if account else None
    if effect.kind == GROUPS:
        joined = groups_of(system.read_text(GROUP), effect.target)
        names = tuple(name for name in effect.names if name in joined)
        return effect._replace(names=names) if names else None
    if effect.kind == PASSWORD:
        field = stored_field(system, effect.target) or ""
        return effect if digest(field.encode(errors="surrogateescape")) == effect.sha256 else None
    if effect.kind == AGEING:
        days = account_state.stored_days(system, effect.target)
        return effect if days is not None and digest(days.encode()) == effect.sha256 else None
    if effect.kind in (UNLOCKED, LOCKED):
        return effect if stored_field(system, effect.target) == "*" else None
    return effect if effect.kind == KEYS and effect.names else None


def find_unrecorded(system: System, paths: Iterable[str]) -> tuple[Effect, ...]:
    """Return what a version without a manifest has left and says itself that it has written."""
    found = ((path, system.read(path) or b"") for path in paths)
    return tuple(
        Effect(FILE, path, sha256=digest(contents)) for path, contents in found if contents.startswith(WRITTEN)
    )


def find_given(system: System, manifest: Manifest) -> list[str]:
    """Return in words what `withdraw` would withdraw."""
    made = {effect.target for effect in manifest.effects if effect.kind == ACCOUNT}
    return [
        WORDS[effect.kind].format(effect.target)
        for effect in manifest.effects
        if effect.kind in WORDS
        and (effect.kind != FILE or effect.sha256 is not None)
        and ((effect.kind == PASSWORD and effect.target in made) or confirm(system, effect))
    ]


async def withdraw(
    system: System, manifest: Manifest, note: Callable[[str], None], *, host_keys: bool
) -> tuple[Effect, ...]:
    """Withdraw what is in a manifest, and return what of it stays there: accounts, and groups that they are in."""
    # To set a password changes its day, too: these are looked at before, and put back after all others.
    aged = [effect for effect in manifest.effects if effect.kind == AGEING and confirm(system, effect)]
    others = [effect for effect in manifest.effects if effect.kind != AGEING]
    made = {effect.target for effect in manifest.effects if effect.kind == ACCOUNT}
    stays = []
    for effect in (*others, *aged):
        try:
            if effect.kind in (ACCOUNT, GROUPS, LOCKED):
                stays.append(effect)
            elif effect.kind == FILE and (host_keys or not effect.target.startswith("/etc/ssh/ssh_host_")):
                await _withdraw_file(system, effect, note)
            elif effect.kind == PASSWORD:
                await _withdraw_password(system, effect, note, own=effect.target in made)
            elif effect.kind == KEYS:
                await remove_lines(system, effect.target, effect.uid, frozenset(effect.names))
            elif effect.kind == UNLOCKED and confirm(system, effect):
                await set_password_field(system, effect.target, "!")
            elif effect.kind == AGEING:
                await account_state.put_back(system, effect)
        except ProvisioningError as error:
            note(f"of another VM, not withdrawn: {effect.kind} {effect.target}: {error}")
    return tuple(stays)


async def _withdraw_file(system: System, effect: Effect, note: Callable[[str], None]) -> None:
    contents = system.read(effect.target)
    if contents is None:
        return
    if digest(contents) != effect.sha256:
        note(f"of another VM, changed since and not withdrawn: {effect.target}")
        return
    if effect.saved is not None:
        await system.replace_own(effect.target, effect.saved, mode=effect.mode or 0o600)
    else:
        await system.remove_own(effect.target)
    if effect.target == HOSTNAME and system.live and socket.gethostname() == contents.decode(errors="replace").strip():
        socket.sethostname(NO_HOSTNAME)
    logger.info("withdrawn, it was another VM's: %s", effect.target)


async def _withdraw_password(system: System, effect: Effect, note: Callable[[str], None], *, own: bool) -> None:
    field = stored_field(system, effect.target)
    if field is None or not field.startswith("$"):
        return
    if own or digest(field.encode(errors="surrogateescape")) == effect.sha256:
        await set_password_field(system, effect.target, "*")
        await system.sync(os.path.dirname(SHADOW))
        logger.info("withdrawn, it was another VM's: the password of %s", effect.target)
    else:
        note(f"of another VM, changed since and not withdrawn: the password of {effect.target}")
