"""What earlier runs left on this disk, and what this one leaves: the state directory, docs/state.md.

Owns the lock of a run, its markers and its journal; and what becomes of what another VM was given.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import stat
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from minprov.config import OnPool
from minprov.errors import ProvisioningError, Reason
from minprov.limits import ANOTHER_RUN_PAUSE, JOURNAL_LIMIT
from minprov.machine import markers
from minprov.machine.account_locks import what_tools_left
from minprov.machine.blocking import in_thread
from minprov.machine.file_systems import volatile_file_system
from minprov.machine.files import file_error, sync
from minprov.machine.journal import Journal
from minprov.machine.manifest import Manifest
from minprov.properties import withdrawal
from minprov.properties.sshd_settings import reload_sshd

if TYPE_CHECKING:
    from minprov.config import Options
    from minprov.machine.identity import Identity
    from minprov.machine.system import System
    from minprov.outcome.result import Result
    from minprov.outcome.timeline import Timeline

logger = logging.getLogger(__name__)

MODE = 0o700
LEFT = "of what it gave that VM, keys, password and host keys stay, as docs/state.md says"


class EarlierRuns:
    """What the runs before this one have left."""

    def __init__(self, options: Options, system: System, identity: Identity, result: Result) -> None:
        self._options = options
        self._system = system
        self._identity = identity
        self._result = result
        self._sshd_is_stale = False

    @property
    def _uuid(self) -> str | None:
        return self._identity.dmi_uuid or self._result.vm_id

    @property
    def _state_dir(self) -> str:
        return self._system.path(self._options.state_dir)

    def is_empty(self) -> bool:
        """Tell whether there was none."""
        return markers.is_empty(self._state_dir)

    async def open(self, timeline: Timeline, deadline: float) -> None:
        """Have the state directory be root's alone, and this run alone at work in it; read the journal.

        Raises:
            ProvisioningError: WRITE_FAILED, NOT_PERMITTED; ANOTHER_RUN at the deadline.

        """
        state_dir = self._options.state_dir
        try:
            with self._system.directory(state_dir, make=MODE):
                pass
            if not markers.is_trusted(self._state_dir):
                await in_thread(markers.distrust, self._state_dir)
                self._result.note(f"others could write to {state_dir}: what was in it is not believed")
            if stat.S_IMODE(os.stat(self._state_dir).st_mode) != MODE:
                os.chmod(self._state_dir, MODE)
                await in_thread(sync, self._state_dir)
            await self._wait_for_other_run(timeline, deadline)
            journal = Journal(self._state_dir)
            journal.open(self._uuid)
        except OSError as error:
            raise file_error(error, state_dir) from error
        self._system.journal = journal

    async def _wait_for_other_run(self, timeline: Timeline, deadline: float) -> None:
        """Have this run alone at work until its process ends, when the kernel releases the lock."""
        # Not closed: the lock is the process's.
        directory = os.open(self._state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with timeline.waiting("another run"):
            while True:
                try:
                    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if asyncio.get_running_loop().time() >= deadline:
                        raise ProvisioningError(Reason.ANOTHER_RUN, state_dir=self._options.state_dir) from None
                    await asyncio.sleep(ANOTHER_RUN_PAUSE)
                else:
                    return

    def _given_to_another_vm(self) -> Manifest | None:
        """Return what an earlier run gave the VM that this disk was captured from, if it was."""
        manifest, options = self._system.journal.manifest, self._options
        if manifest is None and not markers.is_empty(self._state_dir) and not self.holds(markers.APPLIED):
            written = withdrawal.find_unrecorded(self._system, (options.sudo_file, options.sshd_drop_in))
            self._result.note("this disk was provisioned for another VM by a version without a manifest: " + LEFT)
            return Manifest(None, written)
        return None if manifest is None or manifest.is_for(self._uuid) else manifest

    async def withdraw_from_other_vm(self) -> None:
        """Take back what another VM was given."""
        journal = self._system.journal
        journal.uuid = self._uuid
        manifest = self._given_to_another_vm()
        if manifest is None:
            return
        from minprov.properties import custom_data_run, hooks  # few disks are captured

        stays = await withdrawal.withdraw(self._system, manifest, self._result.note, host_keys=True)
        for name in (custom_data_run.RECORD, custom_data_run.LOG, *hooks.FILES):
            await self._system.remove_own(f"{self._options.state_dir}/{name}")
        try:
            await in_thread(journal.forget, Manifest(self._uuid, stays))
        except OSError as error:
            raise file_error(error, self._state_dir) from error
        self._sshd_is_stale = True

    async def reload_sshd(self) -> None:
        """Have a running sshd forget what was withdrawn, once it has keys and a configuration again."""
        if self._sshd_is_stale:
            try:
                await reload_sshd(self._system)
            except ProvisioningError as error:
                self._result.note(f"sshd goes on with what another VM was given: {error}")

    def note_withdrawal(self) -> None:
        """Tell in a dry run what would be taken back."""
        journal = Journal(self._state_dir)
        with suppress(OSError):  # who is not root sees nothing of it
            if markers.is_trusted(self._state_dir):
                journal.open(self._uuid, look_only=True)
        self._system.journal = journal
        if (manifest := self._given_to_another_vm()) and (given := withdrawal.find_given(self._system, manifest)):
            self._result.note(f"another VM was given, and this one is not to keep: {', '.join(given)}")

    async def close_journal(self) -> None:
        """Move to the manifest what this run has done; the next run does it if this one cannot."""
        journal = self._system.journal
        journal.uuid = self._uuid
        try:
            async with asyncio.timeout(JOURNAL_LIMIT):
                await in_thread(self._close)
        except Exception as error:  # the next run closes it, and how this one has ended is to be told
            logger.warning("the journal is not closed: %s", error)

    def _close(self) -> None:
        journal, confirm = self._system.journal, partial(withdrawal.confirm, self._system)
        failed = self._result.error is not None
        journal.close(confirm, keep=[*journal.unfinished(confirm), *what_tools_left(self._system)] if failed else ())

    def note_volatile_state(self) -> None:
        """Tell if nothing is kept."""
        with suppress(OSError):
            kind = volatile_file_system(self._state_dir) if self._system.live else None
            if kind:
                directory = self._options.state_dir
                self._result.note(f"{directory} is on {kind}: the next boot will not know what this one did")

    def waits_in_pool(self) -> bool:
        """Tell whether an earlier run has reported Ready to a pool, and the VM's owner is to come yet."""
        waits = self._options.preprovisioning is OnPool.WAIT and not self._options.left_pool and self._system.live
        return waits and self.holds(markers.POOL) and not self.holds(markers.APPLIED)

    def holds(self, fact: str) -> bool:
        """Tell whether the fact is on record for this VM."""
        return self._uuid is not None and markers.holds(self._state_dir, fact, self._uuid)

    async def record(self, fact: str) -> None:
        """Have the fact on record; raises `ProvisioningError`: WRITE_FAILED, NOT_PERMITTED."""
        if self._uuid is None:
            logger.warning("no VM id from firmware or IMDS: the next boot provisions again")
            return
        try:
            await in_thread(markers.record, self._state_dir, fact, self._uuid)
        except OSError as error:
            raise file_error(error, f"{self._options.state_dir}/{fact}/{self._uuid}") from error
