"""The journal and the manifest: nothing is lost by a kill, a full disk or a damaged line."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.machine.journal import Journal
from minprov.machine.manifest import (
    ACCOUNT,
    FILE,
    GROUPS,
    KEYS,
    Effect,
    Manifest,
    build_effect,
    build_manifest,
    merge,
    parse_effect,
    parse_manifest,
)
from minprov.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Callable

VM = "7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14"
SWAPPED = "7e4f9f7c-f052-294a-8d5a-3b0d1c6e9a14"
OTHER = "11111111-2222-4333-8444-555555555555"
HOSTNAME = Effect(FILE, "/etc/hostname", sha256="aa", before="bb")
SUDOERS = Effect(FILE, "/etc/sudoers", sha256="cc", before="dd", saved=b"root\xff", mode=0o440)
JOINED = Effect(GROUPS, "azureuser", names=("adm", "sudo"))


def opened(directory: Path, uuid: str | None = VM) -> Journal:
    journal = Journal(str(directory))
    journal.open(uuid)
    return journal


def note(journal: Journal, *effects: Effect) -> None:
    asyncio.run(journal.note(*effects))


def as_it_is(effect: Effect) -> Effect:
    return effect


def test_an_effect_is_on_disk_once_it_is_noted(tmp_path: Path) -> None:
    note(opened(tmp_path), HOSTNAME, SUDOERS)
    assert opened(tmp_path).left_over == (HOSTNAME, SUDOERS)
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_effects_of_one_time_share_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fdatasync: Callable[[int], None] = os.fdatasync

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)
    journal = opened(tmp_path)

    async def note_many() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(9):
                group.create_task(journal.note(Effect(FILE, f"/{number}")))

    asyncio.run(note_many())
    assert len(opened(tmp_path).left_over) == 9
    assert len(synced) <= 2


def test_a_journal_that_is_closed_is_the_manifest(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    note(journal, HOSTNAME, JOINED)
    journal.close(lambda effect: effect if effect.kind == FILE else None)
    assert not (tmp_path / "journal").exists()
    assert opened(tmp_path).manifest == Manifest(VM, (HOSTNAME,))
    assert opened(tmp_path).left_over == ()


def test_what_a_killed_run_did_is_in_the_manifest_of_the_next(tmp_path: Path) -> None:
    note(opened(tmp_path), HOSTNAME)
    journal = opened(tmp_path)
    note(journal, JOINED)
    journal.close(as_it_is)
    assert opened(tmp_path).manifest == Manifest(VM, (HOSTNAME, JOINED))


def test_a_run_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    opened(tmp_path).close(as_it_is)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uuid", [VM, SWAPPED, None])
def test_a_journal_of_this_vm_is_left_to_this_run(tmp_path: Path, uuid: str | None) -> None:
    note(opened(tmp_path), HOSTNAME)
    assert opened(tmp_path, uuid).left_over == (HOSTNAME,)


def test_a_journal_of_another_vm_is_of_its_manifest(tmp_path: Path) -> None:
    note(opened(tmp_path), HOSTNAME)
    journal = opened(tmp_path, OTHER)
    assert journal.left_over == ()
    assert journal.manifest == Manifest(VM, (HOSTNAME,))
    assert journal.manifest.is_for(SWAPPED)
    assert not journal.manifest.is_for(OTHER)


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    note(journal, HOSTNAME)
    with (tmp_path / "journal").open("ab") as stream:
        stream.write(b'\n{"kind": "fi')
    note(journal, JOINED)
    assert opened(tmp_path).left_over == (HOSTNAME, JOINED)


def test_an_effect_that_could_not_be_noted_is_noted_with_the_next(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    (tmp_path / "journal").mkdir()
    with pytest.raises(OSError, match="directory"):
        note(journal, HOSTNAME)
    (tmp_path / "journal").rmdir()
    note(journal, JOINED)
    assert opened(tmp_path).left_over == (HOSTNAME, JOINED)


def test_what_was_there_first_is_what_is_gone_back_to() -> None:
    later = SUDOERS._replace(sha256="ee", before="cc", saved=b"ours", mode=0o644)
    assert merge([SUDOERS], [later]) == (SUDOERS._replace(sha256="ee"),)
    assert merge([JOINED], [JOINED._replace(names=("sudo", "devs"))]) == (
        JOINED._replace(names=("adm", "sudo", "devs")),
    )
    made = Effect(ACCOUNT, "azureuser", gid=1234)
    assert merge([made], [made._replace(gid=None, uid=1000)]) == (made._replace(uid=1000),)


def test_the_manifest_has_no_inodes_and_says_only_what_there_is_to_say() -> None:
    document = json.loads(build_manifest(Manifest(VM, (HOSTNAME._replace(inode=7),))))
    assert document == {
        "schema": "minprov/manifest/1",
        "vm": VM,
        "effects": [{"kind": "file", "target": "/etc/hostname", "sha256": "aa", "before": "bb"}],
    }


EFFECTS = st.builds(
    Effect,
    kind=st.sampled_from([FILE, KEYS, ACCOUNT]),
    target=st.text(),
    sha256=st.none() | st.text(),
    saved=st.none() | st.binary(),
    mode=st.none() | st.integers(),
    names=st.lists(st.text()).map(tuple),
)


@given(EFFECTS)
def test_an_effect_is_read_as_it_was_written(effect: Effect) -> None:
    assert parse_effect(json.loads(json.dumps(build_effect(effect)))) == effect


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(Effect._fields), JSON) | JSON)
def test_an_object_is_an_effect_or_is_passed_over(document: object) -> None:
    parse_effect(document)
    if isinstance(document, dict):
        parse_effect({**document, "kind": FILE, "target": "/"})


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_bytes_are_a_manifest_or_are_passed_over(contents: bytes) -> None:
    parse_manifest(contents)


def test_a_file_that_is_replaced_is_in_the_journal(tmp_path: Path) -> None:
    system = System(str(tmp_path))
    system.journal = opened(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/sudoers").write_bytes(b"the image's")
    (tmp_path / "etc/hostname").write_bytes(b"image")

    async def replace() -> None:
        for name in ("sudoers", "hostname"):
            await system.replace(f"/etc/{name}", b"ours", mode=0o440)

    if os.geteuid() != 0:
        pytest.skip("files are given to root")
    asyncio.run(replace())
    sudoers, hostname = system.journal.left_over or opened(tmp_path).left_over
    assert (sudoers.saved, hostname.saved) == (b"the image's", None)
    assert None not in (sudoers.before, hostname.before)
    assert sudoers.sha256 == hostname.sha256


def test_what_is_half_done_when_a_run_fails_is_the_next_runs(tmp_path: Path) -> None:
    made, key = Effect(ACCOUNT, "azureuser"), Effect(FILE, "/etc/ssh/ssh_host_rsa_key", sha256="aa", inode=7)
    journal = opened(tmp_path)
    note(journal, made, JOINED, key, HOSTNAME)
    journal.finish(GROUPS, "azureuser")

    def confirm(effect: Effect) -> Effect | None:
        return None if effect == key else effect

    journal.close(confirm, keep=journal.unfinished(confirm))
    assert opened(tmp_path).left_over == (key, made)
    assert opened(tmp_path).manifest == Manifest(VM, (HOSTNAME, JOINED))
    assert opened(tmp_path).unfinished(lambda effect: None) == [key]
    second = opened(tmp_path)
    second.settle(made)
    assert second.unfinished(as_it_is) == []
