"""A guest is provisioned, deprovisioned and captured; its disk is as before its first boot, and comes up as another VM.

A file that differs and is not in `MAY_DIFFER` is red: something of the first VM would be in each VM of the image.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.findings import LAST_WORD
from tests.vm.lab import HOSTNAME, USERNAME, boot, new_disk
from tests.vm.recipes import ADOPTING, DEPROVISIONED, DEPROVISIONED_OTHERS
from tests.vm.test_guests import OTHER_VM

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from minprov.emulator.guest.login import Answer
    from tests.vm.lab import Guest
    from tests.vm.recipes import Recipe

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

MAY_DIFFER = {
    "/etc/hostname": "the plan removes the name that minprov gave",
    "/etc/ssh/ssh_host_*": "the image had keys of its own, which each VM would have had",
    "/etc/resolv.conf": "the plan empties what a DHCP client wrote",
    "/etc/adjtime": "hwclock writes it at the shutdown",
    "/etc/.pwd.lock": "account tools lock it; it is empty",
    "/etc/passwd-": "account tools' copies of what the image had",
    "/etc/shadow-": "",
    "/etc/group-": "",
    "/etc/gshadow-": "",
    "/etc/subuid-": "",
    "/etc/subgid-": "",
    "/var/log/*": "the shutdown is logged",
    "/var/lib/systemd/random-seed": "systemd makes a new one at the shutdown, and another at each boot",
    "/var/lib/systemd/timers/*": "times of the last runs",
    "/var/lib/systemd/catalog/*": "made at the first boot",
    "/var/cache/ldconfig/*": "made at the first boot",
    "/etc/ld.so.cache": "made at the first boot",
}
OF_AN_ADOPTED_ACCOUNT = ("/etc/shadow",)  # its password becomes "*", whatever it was
IDENTITY = """
cat /etc/machine-id /etc/ssh/ssh_host_*_key.pub 2>/dev/null
sha256sum /var/lib/systemd/random-seed /var/lib/urandom/random-seed 2>/dev/null
""".strip().replace("\n", "; ")
EMPTY = hashlib.sha256().hexdigest()
# With the layer over /etc, where the guest has one, and not as files of their own.
LIST = """
mount -o ro,noload,loop "$1" /mnt && cd /mnt
! [ -d var/overlay/etc ] || mount -t overlay -o lowerdir=var/overlay/etc:etc overlay etc
find . ./etc -xdev -path ./var/overlay -prune -o -type f -print0 | sort -zu | xargs -0 sha256sum
"""


class Seen(NamedTuple):
    """What the two VMs told, and which files of the disk between them are not the image's."""

    adopted: bool
    deprovisioned: Answer
    first: list[str]
    second: list[str]
    differing: list[str]
    machine_id: str | None
    login: Answer
    first_user: Answer


def files_of(disk: Path) -> dict[str, str]:
    """Return the hash of each file of a disk."""
    command = ["unshare", "--mount", "sh", "-euc", LIST, "sh", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {
        path.removeprefix("."): digest
        for digest, _, path in (line.partition("  ") for line in done.stdout.splitlines())
    }


async def identity(guest: Guest) -> list[str]:
    """Return what no two VMs may have in common."""
    return (await guest.ask(IDENTITY)).output.split("\n")


async def round_trip(recipe: Recipe) -> Seen:
    """Boot, deprovision, look at the disk, boot as another VM."""
    with new_disk(recipe) as disk:
        before = files_of(disk.path)
        async with boot(recipe, name=f"{recipe.name}-1-first", disk=disk) as guest:
            await _provisioned(guest, recipe)
            await guest.ssh_with_key("true")
            first = await identity(guest)
            deprovisioned = await guest.ask("minprov deprovision --user --yes 2>&1", within=120)
            await guest.machine.power_off()
        after = files_of(disk.path)
        async with boot(recipe, name=f"{recipe.name}-2-captured", disk=disk, vm=OTHER_VM) as guest:
            await _provisioned(guest, recipe)
            login = await guest.ssh_with_key("id -un; hostname", user=OTHER_VM["username"])
            second = await identity(guest)
            first_user = await guest.ask(f"getent passwd {USERNAME}; ls /home; grep -r {HOSTNAME} /etc || true")
            await guest.machine.power_off()
    differing = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return Seen(
        recipe is ADOPTING, deprovisioned, first, second, differing, after.get("/etc/machine-id"), login, first_user
    )


async def _provisioned(guest: Guest, recipe: Recipe) -> None:
    await guest.platform.reported("Ready", within=500)
    await guest.machine.console.expect(LAST_WORD, within=60)
    await guest.machine.shell_ready(within=200)
    if recipe.systemd:
        await guest.ask("systemctl is-system-running --wait", within=300)


SEQUENCES = [
    on_demand(BootSequence(recipe.name, functools.partial(round_trip, recipe)))
    for recipe in (DEPROVISIONED, ADOPTING, *DEPROVISIONED_OTHERS)
]


@pytest.fixture(scope="module", params=SEQUENCES, ids=lambda sequence: sequence.name)
def seen(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Seen]]) -> Seen:
    return outcomes[request.param].result()


def test_everything_was_done(seen: Seen) -> None:
    assert seen.deprovisioned.status == 0, seen.deprovisioned.output
    assert "failed:" not in seen.deprovisioned.output


def test_the_disk_is_as_before_the_first_boot(seen: Seen) -> None:
    expected = (*MAY_DIFFER, *(OF_AN_ADOPTED_ACCOUNT if seen.adopted else ()))
    unexpected = [path for path in seen.differing if not any(fnmatch.fnmatch(path, name) for name in expected)]
    assert not unexpected, "\n".join(unexpected)


def test_the_machine_id_is_an_empty_file(seen: Seen) -> None:
    assert seen.machine_id == EMPTY


def test_another_user_logs_in_at_the_next_vm(seen: Seen) -> None:
    assert seen.login.lines == [OTHER_VM["username"], OTHER_VM["hostname"]]
    if seen.adopted:  # the account is the image's
        account, *homes = seen.first_user.lines
        assert account.split(":")[0] == USERNAME
        assert homes == [USERNAME, OTHER_VM["username"]]
    else:
        assert seen.first_user.lines == [OTHER_VM["username"]]


def test_nothing_that_identifies_is_the_same(seen: Seen) -> None:
    assert set(filter(None, seen.first)).isdisjoint(seen.second)
