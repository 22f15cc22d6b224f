"""A guest is provisioned, deprovisioned and captured; its disk is as before its first boot, and comes up as another VM.

A file that differs and is not in `MAY_DIFFER` is red: something of the first VM would be in each VM of the image.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import itertools
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.vm.boot_sequence import BootSequence, on_demand
from tests.vm.findings import LAST_WORD
from tests.vm.lab import HOSTNAME, PASSWORD, USERNAME, boot, new_disk
from tests.vm.machine import Disk
from tests.vm.recipes import ADOPTING, DEPROVISIONED, DEPROVISIONED_OTHERS
from tests.vm.test_guests import OTHER_VM

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from minprov.emulator.guest.login import Answer
    from tests.vm.lab import Guest
    from tests.vm.recipes import Recipe

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

MAY_GO = {
    "/etc/hostname": "the plan removes the name that minprov gave",
    "/etc/ssh/ssh_host_*": "the image had keys of its own, which each VM would have had",
    "/etc/*-": "account tools' copies of what was in /etc/passwd and the others before",
}
MAY_BE_EMPTY = {"/var/log/*": "the plan empties logs, and deletes old ones"}
MAY_DIFFER = {
    "/etc/resolv.conf": "the plan empties what a DHCP client wrote",
    "/etc/mtab": "a link that the first boot makes",
    "/etc/adjtime": "hwclock writes it at the shutdown",
    "/etc/.pwd.lock": "account tools lock it; it is empty",
    "/var/lib/minprov": "an empty directory",
    "/var/log/wtmp": "the shutdown is logged",
    "/var/lib/dbus/machine-id": "a link to /etc/machine-id, which the first boot makes",
    "/var/lib/systemd/linger": "an empty directory of logind's",
    "/var/lib/systemd/timers*": "times of the last runs",
    "/var/lib/systemd/catalog/*": "made at the first boot",
    "/var/cache/ldconfig/*": "made at the first boot",
    "/etc/ld.so.cache": "made at the first boot",
    "/tmp/.*-unix": "empty directories that each boot makes",
    "/usr/lib/rc/cache*": "OpenRC's, made of its scripts",
}
OF_AN_ADOPTED_ACCOUNT = {
    "/etc/shadow": "its password becomes *, whatever it was",
    f"/home/{USERNAME}/.ssh": "its home stays, with an empty directory",
    f"/home/{USERNAME}/.sudo_as_admin_successful": "sudo's, of its first use",
}
IDENTITIES = {
    "host keys": "cat /etc/ssh/ssh_host_*_key.pub",
    "machine id": "cat /etc/machine-id",
    "random seed": "sha256sum </var/lib/systemd/random-seed || sha256sum </var/lib/urandom/random-seed",
    "DHCP client id": "grep -h CLIENTID= /run/systemd/netif/leases/* || grep -h default-duid /var/lib/dhcp/*.leases",
}
"""What no two VMs may have in common, and how each is found."""
THIRD_VM = {"vm-id": "5c2e7d10-3a6f-4f0b-9d41-7a90b1c4e3d2"}
TWINS = ("deprovisioned-networkd", "deprovisioned-sysvinit")
"""Of these images two VMs are made."""
WITHOUT_IDENTITY: dict[str, set[str]] = {
    "deprovisioned-busybox": {"machine id", "random seed", "DHCP client id"},
    "deprovisioned-sysvinit": {"machine id"},
    "deprovisioned-openrc": {"machine id"},
}
EMPTY = hashlib.sha256().hexdigest()
# With the layer over /etc, where the guest has one, and not as files of their own; without what a boot mounts over.
LIST = """
mount -o ro,noload,loop "$1" /mnt && cd /mnt
! [ -d var/overlay/etc ] || mount -t overlay -o lowerdir=var/overlay/etc:etc overlay etc
list() { find . ./etc -xdev -path ./var/overlay -prune -o -path './run/*' -prune -o "$@"; }
list -printf '%y%l,%m,%U:%G,%Z  %p\\n' | sort -u
list -type f -print0 | sort -zu | xargs -0 sha256sum
"""


class Seen(NamedTuple):
    """What the VMs told, and what of the disk between them is not the image's."""

    recipe: Recipe
    deprovisioned: Answer
    differing: dict[str, str | None]
    """What each of these files is now."""
    machine_id: str
    login: Answer
    first_user: Answer
    identities: list[dict[str, str]]
    """Of each VM."""


def files_of(disk: Path) -> dict[str, str]:
    """Return what each file of a disk is: type, link, mode, owner, label, hash."""
    command = ["unshare", "--mount", "sh", "-euc", LIST, "sh", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        fact, _, path = line.partition("  ")
        name = path.removeprefix(".")
        found[name] = f"{found.get(name, '')} {fact}"
    return found


def copy_of(disk: Disk) -> Disk:
    """Copy a disk, to where it goes away with it."""
    copy = disk.path.with_name("copy.ext4")
    subprocess.run(["cp", "--sparse=always", disk.path, copy], check=True)
    return Disk(copy)


async def identities(guest: Guest) -> dict[str, str]:
    """Return what no other VM may have in common with this one."""
    return {name: (await guest.ask(f"({command}) 2>/dev/null")).output for name, command in IDENTITIES.items()}


async def round_trip(recipe: Recipe, *, twin: bool = False) -> Seen:
    """Boot, deprovision, look at the disk, and boot it as another VM; a twin is a third VM, of a copy of the disk."""
    with new_disk(recipe) as disk:
        before = files_of(disk.path)
        async with boot(recipe, name=f"{recipe.name}-1-first", disk=disk) as guest:
            await _provisioned(guest, recipe)
            await guest.ssh_with_key(f"echo {PASSWORD} | sudo -S true")
            vms = [await identities(guest)]
            deprovisioned = await guest.ask("minprov deprovision --user --yes 2>&1", within=120)
            await guest.machine.power_off()
        copy = copy_of(disk)
        after = files_of(disk.path)
        async with boot(recipe, name=f"{recipe.name}-2-captured", disk=disk, vm=OTHER_VM) as guest:
            await _provisioned(guest, recipe)
            login = await guest.ssh_with_key("id -un; hostname", user=OTHER_VM["username"])
            vms.append(await identities(guest))
            first_user = await guest.ask(f"getent passwd {USERNAME}; ls /home; grep -r {HOSTNAME} /etc || true")
            await guest.machine.power_off()
        if twin:
            async with boot(recipe, name=f"{recipe.name}-3-twin", disk=copy, vm=THIRD_VM) as guest:
                await _provisioned(guest, recipe)
                vms.append(await identities(guest))
                await guest.machine.power_off()
    paths = sorted(before.keys() | after.keys())
    differing = {path: after.get(path) for path in paths if before.get(path) != after.get(path)}
    return Seen(recipe, deprovisioned, differing, after["/etc/machine-id"], login, first_user, vms)


async def _provisioned(guest: Guest, recipe: Recipe) -> None:
    await guest.platform.reported("Ready", within=500)
    await guest.machine.console.expect(LAST_WORD, within=60)
    await guest.machine.shell_ready(within=200)
    if recipe.systemd:
        await guest.ask("systemctl is-system-running --wait", within=300)


SEQUENCES = [
    on_demand(BootSequence(recipe.name, functools.partial(round_trip, recipe, twin=recipe.name in TWINS)))
    for recipe in (DEPROVISIONED, ADOPTING, *DEPROVISIONED_OTHERS)
]


@pytest.fixture(scope="module", params=SEQUENCES, ids=lambda sequence: sequence.name)
def seen(request: pytest.FixtureRequest, outcomes: dict[BootSequence, Future[Seen]]) -> Seen:
    return outcomes[request.param].result()


def test_everything_was_done(seen: Seen) -> None:
    assert seen.deprovisioned.status == 0, seen.deprovisioned.output
    assert "failed:" not in seen.deprovisioned.output


def test_the_disk_is_as_before_the_first_boot(seen: Seen) -> None:
    expected = {
        path
        for path, now in seen.differing.items()
        for name in (
            *MAY_DIFFER,
            *(MAY_GO if now is None else ()),
            *(MAY_BE_EMPTY if now is None or now.endswith(EMPTY) else ()),
            *(OF_AN_ADOPTED_ACCOUNT if seen.recipe is ADOPTING else ()),
        )
        if fnmatch.fnmatch(path, name)
    }
    unexpected = [f"{path}{now}" for path, now in seen.differing.items() if path not in expected]
    assert not unexpected, "\n".join(unexpected)


def test_the_machine_id_is_an_empty_file(seen: Seen) -> None:
    assert seen.machine_id.endswith(EMPTY)


def test_another_user_logs_in_at_the_next_vm(seen: Seen) -> None:
    assert seen.login.lines == [OTHER_VM["username"], OTHER_VM["hostname"]]
    if seen.recipe is ADOPTING:  # the account is the image's
        account, *homes = seen.first_user.lines
        assert account.split(":")[0] == USERNAME
        assert homes == [USERNAME, OTHER_VM["username"]]
    else:
        assert seen.first_user.lines == [OTHER_VM["username"]]


def test_no_two_vms_have_an_identity_in_common(seen: Seen) -> None:
    expected = IDENTITIES.keys() - WITHOUT_IDENTITY.get(seen.recipe.name, set())
    for one, other in itertools.combinations(seen.identities, 2):
        assert {name for name in one if one[name]} == {name for name in other if other[name]} == expected
        for name in expected:
            assert set(one[name].splitlines()).isdisjoint(other[name].splitlines()), name
