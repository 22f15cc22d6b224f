"""What minprov did to this system, so that it can be undone: docs/state.md.

    DIR/manifest.json    every effect of the runs for one VM, by path and SHA-256

It holds no secret: of a file its hash alone is kept, and the bytes that were there before only for the files of sshd
and sudo and for /etc/hosts. Nothing in it depends on the disk, so it is as good in a copy of the tree.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from minprov.definitions import NamedTuple
from minprov.formats.sha2 import sha256
from minprov.machine.identity import swap_byte_order

if TYPE_CHECKING:
    from collections.abc import Iterable

MANIFEST = "manifest.json"
SCHEMA = "minprov/manifest/1"
FILE, ACCOUNT, GROUPS, PASSWORD, KEYS, TOOLS = "file", "account", "groups", "password", "keys", "tools"
AGEING, UNLOCKED, LOCKED = "ageing", "unlocked", "locked"
KINDS = (FILE, ACCOUNT, GROUPS, PASSWORD, KEYS, AGEING, UNLOCKED, LOCKED, TOOLS)
SAVED = ("/etc/ssh/sshd_config", "/etc/sudoers", "/etc/hosts")
"""Of files with these beginnings what was there before is kept whole."""


class Effect(NamedTuple):
    """One thing that a run did, or is about to do: a line of the journal, an element of the manifest.

    kind        target       what the rest says
    file        its path     `sha256` of what was written, `before` of what was there, `saved` its bytes and `mode`
    account     its name     it was made; `uid`; `gid`, if the image had a group of that name already
    groups      an account   the `names` of the groups that it joined
    password    an account   `sha256` of its field of shadow(5)
    ageing      an account   `sha256` of its days of last change and of expiry, as "DAY:DAY", `before` those days before
    unlocked    an account   its field of shadow(5) was locked, and is ``*``
    locked      root         its password is locked; what it was is not kept
    keys        a file       the `names` are the SHA-256 of the lines that were added to it; `uid` of whose it is
    tools       /etc         account tools are run; the `names` and inodes of what looks like their temporary files and
                             is not; in the journal alone
    """

    kind: str
    target: str
    sha256: str | None = None
    before: str | None = None
    saved: bytes | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    inode: int | None = None
    """In the journal alone: a copy of the tree has other ones."""
    names: tuple[str, ...] = ()


class Manifest(NamedTuple):
    """The effects for one VM; `uuid` is that of its firmware or, without one, of IMDS."""

    uuid: str | None
    effects: tuple[Effect, ...]

    def is_for(self, uuid: str | None) -> bool:
        """Tell whether it is this VM's, in either byte order."""
        return uuid is None or self.uuid is None or self.uuid in (uuid, swap_byte_order(uuid))


def digest(contents: bytes) -> str:
    """Return the SHA-256 by which an effect names contents."""
    return sha256(contents).hexdigest()


def merge(earlier: Iterable[Effect], later: Iterable[Effect]) -> tuple[Effect, ...]:
    """Return one effect for each target: what is there is the later one's, what was there before the earlier one's.

    They are in the order of their targets: properties are applied side by side, and which was first says nothing.
    """
    merged: dict[tuple[str, str], Effect] = {}
    for effect in (*earlier, *later):
        first = merged.get((effect.kind, effect.target))
        if first is None:
            merged[effect.kind, effect.target] = effect
            continue
        names = tuple(dict.fromkeys(first.names + effect.names))
        if effect.kind == FILE:
            effect = effect._replace(before=first.before, saved=first.saved, mode=first.mode)
        elif effect.kind == ACCOUNT:
            effect = effect._replace(gid=first.gid)
        elif effect.kind == AGEING:
            effect = effect._replace(before=first.before)
        merged[effect.kind, effect.target] = effect._replace(names=names)
    return tuple(sorted(merged.values(), key=lambda effect: effect.target))


def build_effect(effect: Effect) -> dict[str, Any]:
    """Return the effect as a JSON object, without what it does not say."""
    document = {name: value for name, value in effect._asdict().items() if value not in (None, ())}
    if effect.saved is not None:
        document["saved"] = base64.b64encode(effect.saved).decode()
    return document


def parse_effect(document: object) -> Effect | None:
    """Return the effect of a JSON object, or None for one that is damaged, or of a kind that a later version knows."""
    if not isinstance(document, dict) or document.get("kind") not in KINDS:
        return None
    if not isinstance(document.get("target"), str):
        return None
    known = {name: value for name, value in document.items() if name in Effect._fields}
    try:
        if "saved" in known:
            known["saved"] = base64.b64decode(known["saved"], validate=True)
        names = known.pop("names", ())
        effect = Effect(**known, names=tuple(map(str, names)))
    except (TypeError, ValueError):
        return None
    numbers = (effect.mode, effect.uid, effect.gid, effect.inode)
    texts = (effect.sha256, effect.before)
    well_formed = all(value is None or isinstance(value, int) for value in numbers) and all(
        value is None or isinstance(value, str) for value in texts
    )
    return effect if well_formed else None


def build_manifest(manifest: Manifest) -> bytes:
    """Return the document for a manifest."""
    effects = [build_effect(effect._replace(inode=None)) for effect in manifest.effects]
    document = {"schema": SCHEMA, "vm": manifest.uuid, "effects": effects}
    return json.dumps(document, indent=1).encode() + b"\n"


def parse_manifest(contents: bytes) -> Manifest | None:
    """Return the manifest of a document, or None for one that is damaged."""
    try:
        document = json.loads(contents)
        if document["schema"] != SCHEMA:
            return None
        uuid, effects = document["vm"], document["effects"]
        parsed = tuple(effect for item in effects if (effect := parse_effect(item)))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Manifest(uuid if isinstance(uuid, str) else None, parsed)
