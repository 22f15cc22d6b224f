"""What this run is about to do, on disk before it is done: docs/state.md.

    DIR/journal    a line that says whose it is, then a line for each effect

It is closed however the run ends, and its effects go to the manifest. One that is still there was left by a run that
was killed: the next run makes whole, or undoes, what it proves, and nothing else. Effects that are noted at one time
are put on disk together.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from minprov.machine.blocking import in_thread
from minprov.machine.files import read_file, replace_contents, sync
from minprov.machine.manifest import (
    ACCOUNT,
    FILE,
    GROUPS,
    MANIFEST,
    Effect,
    Manifest,
    build_effect,
    build_manifest,
    merge,
    parse_effect,
    parse_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

JOURNAL = "journal"
SCHEMA = "minprov/journal/1"
MODE = 0o600


class Journal:
    """The journal in a state directory, and the manifest beside it; without a directory nothing is kept."""

    def __init__(self, directory: str | None = None) -> None:
        self._directory = directory
        self._waiting: list[Effect] = []
        self._noted: list[Effect] = []
        self._lock = asyncio.Lock()
        self.uuid: str | None = None
        self.manifest: Manifest | None = None
        self.left_over: tuple[Effect, ...] = ()
        """The effects of a run that was killed."""
        self._finished: set[tuple[str, str]] = set()

    def open(self, uuid: str | None, *, look_only: bool = False) -> None:
        """Read what earlier runs left; raises OSError."""
        self.uuid = uuid
        contents = read_file(None, self._path(MANIFEST))
        self.manifest = None if contents is None else parse_manifest(contents)
        lines = (read_file(None, self.path) or b"").splitlines()
        documents = [document for line in lines if (document := _parse_line(line))]
        self.left_over = tuple(effect for document in documents if (effect := parse_effect(document)))
        owner = next((document.get("vm") for document in documents if document.get("schema") == SCHEMA), None)
        if self.left_over and isinstance(owner, str) and not Manifest(owner, ()).is_for(uuid):
            # It was another VM's: its disk was captured after the kill.
            self.manifest = Manifest(owner, merge(self.manifest.effects if self.manifest else (), self.left_over))
            self.left_over = ()
            if not look_only:
                self._keep(self.manifest)
                self._remove()

    async def note(self, *effects: Effect) -> None:
        """Have it on disk that these effects are to come; raises OSError."""
        if self._directory is None:
            return
        self._waiting += effects
        async with self._lock:
            batch = tuple(self._waiting)
            if batch:
                await in_thread(self._append, batch)
                self._waiting = self._waiting[len(batch) :]
                self._noted += batch

    def finish(self, kind: str, target: str) -> None:
        """Say that an effect is whole which takes more than one step: an account, its groups."""
        self._finished.add((kind, target))

    def settle(self, effect: Effect) -> None:
        """Take what a run that was killed had begun with for one's own, now that it is whole."""
        self.left_over = tuple(other for other in self.left_over if other != effect)
        self._noted.append(effect)
        self.finish(effect.kind, effect.target)

    def unfinished(self, confirm: Callable[[Effect], Effect | None]) -> list[Effect]:
        """Return what is half done when a run fails: accounts and groups that are not whole, keys not in place."""
        return [effect for effect in merge(self.left_over, self._noted) if self._is_half_done(effect, confirm)]

    def _is_half_done(self, effect: Effect, confirm: Callable[[Effect], Effect | None]) -> bool:
        begun = confirm(effect) is not None
        if effect.kind == FILE:
            return effect.inode is not None and not begun
        if effect.kind not in (ACCOUNT, GROUPS) or (effect.kind, effect.target) in self._finished:
            return False
        return begun or effect.gid is not None  # an account is gone, and its group, which was the image's, with it

    def close(self, confirm: Callable[[Effect], Effect | None], *, keep: Collection[Effect] = ()) -> None:
        """Move to the manifest what has come about, as `confirm` says; raises OSError.

        What is to be kept stays in the journal: the next run needs it.
        """
        if self._directory is None:
            return
        effects = [effect for effect in merge(self.left_over, self._noted) if effect not in keep]
        mine = [confirmed for effect in effects if (confirmed := confirm(effect))]
        if mine:
            self._keep(Manifest(self.uuid, merge(self.manifest.effects if self.manifest else (), mine)))
        if keep:
            replace_contents(self.path, _build_lines([self._header(), *map(build_effect, keep)]), mode=MODE)
        elif self.left_over or self._noted:
            self._remove()
        self.left_over, self._noted = (), []

    def forget(self, manifest: Manifest | None) -> None:
        """Keep another manifest in the place of what was: what it no longer has was undone. Raises OSError."""
        if manifest is not None:
            self._keep(manifest)
        self.manifest = manifest

    def find_left_over(self, kind: str, target: str) -> Effect | None:
        """Return what a run that was killed had begun with, if it had."""
        return _find(self.left_over, kind, target)

    def find(self, kind: str, target: str) -> Effect | None:
        """Return what a run that was killed, or this one, has begun with."""
        return _find(merge(self.left_over, self._noted), kind, target)

    def is_ours(self, path: str, sha256: str) -> bool:
        """Tell whether a run for this VM, or this one, has written a file as it is."""
        effects = (*(self.manifest.effects if self.manifest else ()), *self.left_over, *self._noted)
        return any(effect[:3] == (FILE, path, sha256) for effect in effects)

    @property
    def path(self) -> str:
        """Where it is."""
        return self._path(JOURNAL)

    def _keep(self, manifest: Manifest) -> None:
        replace_contents(self._path(MANIFEST), build_manifest(manifest), mode=MODE)
        self.manifest = manifest

    def _append(self, effects: tuple[Effect, ...]) -> None:
        path = self.path
        new = not os.path.exists(path)
        lines = _build_lines([*([self._header()] if new else []), *map(build_effect, effects)])
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags | os.O_CREAT if new else flags, MODE)
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync(os.path.dirname(path))

    def _header(self) -> dict[str, object]:
        return {"schema": SCHEMA, "vm": self.uuid}

    def _remove(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.path)

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"


def _build_lines(documents: Iterable[dict[str, object]]) -> bytes:
    # Each line starts with a line break: one that a full disk has cut off spoils no other.
    return b"".join(b"\n" + json.dumps(document).encode() for document in documents) + b"\n"


def _find(effects: Iterable[Effect], kind: str, target: str) -> Effect | None:
    return next((effect for effect in effects if (effect.kind, effect.target) == (kind, target)), None)


def _parse_line(line: bytes) -> dict[str, object] | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
