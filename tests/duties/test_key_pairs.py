"""Key pairs of the ovf-env, from certificates that openssl(1) has made: owners, modes, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minprov.actions import Policy
from minprov.commands import certificates as command
from minprov.duties.certificates import duty, key_pairs
from minprov.duties.certificates.key_pairs import KeyPair, parse_key_pairs
from minprov.duties.certificates.settings import Options
from minprov.emulator.ovf_env import build_ovf_env
from minprov.emulator.platform import Emulator
from minprov.emulator.vm import SAMPLE_VM
from minprov.errors import ProvisioningError, Reason
from minprov.formats.accounts import Account

UID, GID = 4321, 4322
FAR = "0" * 40

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files are the user's, which root alone can make them")


def openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *arguments], capture_output=True, check=True).stdout


class Place:
    """A VM's user, certificate and state directory."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, *key: str, with_key: bool = True) -> None:
        self.home, self.state = directory / "home", directory / "state"
        self.home.mkdir()
        os.chown(self.home, UID, GID)
        self.state.mkdir()
        private, self.certificate = directory / "key.pem", directory / "certificate.pem"
        names = ("-subj", "/CN=pair", "-keyout", private, "-out", self.certificate)
        openssl("req", "-x509", "-newkey", *(key or ("rsa:2048",)), "-nodes", "-days", "9", *names)
        kept = ("-inkey", private) if with_key else ("-nokeys",)
        pfx = openssl("pkcs12", "-export", *kept, "-in", self.certificate, "-passout", "pass:")
        self.vm = replace(SAMPLE_VM, certificates=pfx)
        account = Account("azureuser", UID, GID, str(self.home), "/bin/sh")
        monkeypatch.setattr(key_pairs, "find_user", lambda _, name: account if name == account.name else None)
        shown = openssl("x509", "-in", self.certificate, "-noout", "-fingerprint", "-sha1").decode()
        self.thumbprint = shown.partition("=")[2].strip()

    def name(self, *pairs: tuple[str, str], user: str = "azureuser") -> None:
        """Write the ovf-env as a run has stored it."""
        listed = "".join(
            f"<KeyPair><Fingerprint>{thumbprint}</Fingerprint><Path>{path}</Path></KeyPair>"
            for thumbprint, path in pairs
        )
        document = build_ovf_env(SAMPLE_VM).decode()
        document = document.replace("</SSH>", f"<KeyPairs>{listed}</KeyPairs></SSH>")
        (self.state / "ovf-env.xml").write_text(document.replace(">azureuser<", f">{user}<"))

    def fetch(self, vm_id: str = "a", *, dry_run: bool = False) -> dict[str, str]:
        async def main() -> dict[str, Any]:
            async with Emulator(self.vm) as platform:
                url = platform.wireserver_url
                return await duty.run(options, url, str(self.state), vm_id, dry_run=dry_run)

        options = Options(Policy.REQUIRED, str(self.state / "certificates"), key_pairs=True)
        states: dict[str, str] = asyncio.run(main())["key_pairs"]
        return {path.replace(str(self.home), "~"): state for path, state in states.items()}

    def refused(self) -> tuple[Reason, dict[str, str]]:
        with pytest.raises(ProvisioningError) as caught:
            self.fetch()
        return caught.value.reason, caught.value.data


Make = Callable[..., Place]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def make_place(*key: str, with_key: bool = True) -> Place:
        return Place(tmp_path, monkeypatch, *key, with_key=with_key)

    return make_place


def look(path: Path) -> tuple[str, int, int]:
    found = path.lstat()
    return f"{stat.S_IMODE(found.st_mode):04o}", found.st_uid, found.st_gid


@pytest.mark.parametrize("key", [("rsa:2048",), ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")], ids=["RSA", "EC"])
def test_a_pair_is_the_users_and_ssh_can_use_it(make: Make, key: tuple[str, ...]) -> None:
    place = make(*key)
    place.name((place.thumbprint, "$HOME/.ssh/id_vm"))
    assert place.fetch(dry_run=True) == {"~/.ssh/id_vm": "planned", "~/.ssh/id_vm.pub": "planned"}
    assert not (place.home / ".ssh").exists()
    assert set(place.fetch().values()) == {"changed"}
    private, public = place.home / ".ssh/id_vm", place.home / ".ssh/id_vm.pub"
    assert look(private) == ("0600", UID, GID)
    assert look(public) == ("0644", UID, GID)
    assert look(private.parent) == ("0700", UID, GID)
    of_private = openssl("pkey", "-in", private, "-pubout")
    assert of_private == openssl("x509", "-in", place.certificate, "-noout", "-pubkey")
    derived = subprocess.run(["ssh-keygen", "-y", "-f", private], capture_output=True, text=True, check=True).stdout
    assert derived.split()[:2] == public.read_text().split()[:2]
    private.chmod(0o644)
    assert place.fetch() == {"~/.ssh/id_vm": "changed", "~/.ssh/id_vm.pub": "unchanged"}
    assert look(private) == ("0600", UID, GID)
    assert set(place.fetch().values()) == {"unchanged"}


def test_without_the_setting_none_is_written(make: Make) -> None:
    place = make()
    place.name((place.thumbprint, "$HOME/.ssh/id_vm"))
    options = Options(Policy.REQUIRED, str(place.state / "certificates"))

    async def main() -> dict[str, Any]:
        async with Emulator(place.vm) as platform:
            return await duty.run(options, platform.wireserver_url, str(place.state), "a", dry_run=False)

    assert asyncio.run(main())["key_pairs"] == {}
    assert not (place.home / ".ssh").exists()


@pytest.mark.parametrize(
    ("thumbprint", "data"),
    [
        (FAR, {"thumbprint": FAR}),
        ("", {"detail": "the ovf-env names no thumbprint"}),
        ("12 34", {"thumbprint": "12 34", "detail": "this is no thumbprint"}),
    ],
    ids=["of another certificate", "none", "no thumbprint"],
)
def test_a_thumbprint_that_is_wrong_or_missing_is_the_reason(make: Make, thumbprint: str, data: dict[str, str]) -> None:
    place = make()
    other = f"{place.home}/other"
    place.name((thumbprint, f"{place.home}/.ssh/id_vm"), (place.thumbprint, other))
    assert place.refused() == (Reason.CERTIFICATE_NOT_DELIVERED, {"path": f"{place.home}/.ssh/id_vm"} | data)
    # The other pair is in its place, and both facts are on record.
    assert Path(other).exists()
    record = json.loads((place.state / "certificates.json").read_text())
    assert record["error"]["reason"] == "certificate not delivered"
    assert set(record["key_pairs"]) == {other, f"{other}.pub"}


def test_a_certificate_without_its_key_is_no_pair(make: Make) -> None:
    place = make(with_key=False)
    place.name((place.thumbprint, "$HOME/id"))
    reason, data = place.refused()
    assert (reason, data["detail"]) == (Reason.CERTIFICATE_NOT_DELIVERED, "it came without its key")


@pytest.mark.parametrize("path", ["/etc/id", "$HOME/../id", "$HOME", "$HOME/.ssh/", "id", "", "$HOME/a\tb"])
def test_a_path_outside_the_home_directory_is_refused(make: Make, path: str) -> None:
    place = make()
    place.name((place.thumbprint, path))
    assert place.refused()[0] is Reason.KEY_PAIR_REFUSED
    assert list(place.home.iterdir()) == []


@pytest.mark.parametrize("name", ["id", "id.pub"])
def test_another_key_is_not_replaced(make: Make, name: str) -> None:
    place = make()
    there = place.home / name
    there.write_text("the user's own\n")
    os.chown(there, UID, GID)
    place.name((place.thumbprint, "$HOME/id"))
    assert place.refused() == (Reason.KEY_PAIR_REFUSED, {"path": str(there), "detail": "another file is there"})
    assert there.read_text() == "the user's own\n"
    assert list(place.home.iterdir()) == [there]


def test_a_link_of_the_users_leads_nowhere(make: Make, tmp_path: Path) -> None:
    place = make()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (place.home / ".ssh").symlink_to(elsewhere)
    place.name((place.thumbprint, "$HOME/.ssh/id"))
    place.refused()
    assert list(elsewhere.iterdir()) == []


def test_a_user_who_is_not_there_is_told(make: Make) -> None:
    place = make()
    place.name((place.thumbprint, "$HOME/id"), user="nobody-here")
    assert place.refused() == (Reason.KEY_PAIR_REFUSED, {"path": "$HOME/id", "detail": "no account"})


def test_another_vms_pair_is_removed_and_one_that_was_changed_stays(make: Make) -> None:
    place = make()
    place.name((place.thumbprint, "$HOME/id"))
    place.fetch("first")
    (place.home / "id.pub").write_text("changed\n")
    place.name()
    assert place.fetch("second") == {}
    assert not (place.home / "id").exists()
    assert (place.home / "id.pub").read_text() == "changed\n"


def test_no_ovf_env_names_no_pair(make: Make) -> None:
    assert make().fetch() == {}


def test_the_elements_are_waagents() -> None:
    document = build_ovf_env(SAMPLE_VM).replace(
        b"</SSH>", b"<KeyPairs><KeyPair><Fingerprint> AB:CD </Fingerprint></KeyPair><KeyPair/></KeyPairs></SSH>"
    )
    assert parse_key_pairs(document) == ("azureuser", [KeyPair("AB:CD", ""), KeyPair("", "")])


def test_pairs_need_the_stored_ovf_env(tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.write_text('ovf-env.policy = "off"\n[certificates]\npolicy = "required"\nkey-pairs = true\n')
    with pytest.raises(ProvisioningError) as caught:
        command.run(["--config", str(config)])
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert caught.value.data["key"] == "certificates.key-pairs"
