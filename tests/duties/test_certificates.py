"""Certificates by thumbprint: what openssl(1) has made is opened by the library, or by the tool without it."""

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
from minprov.duties.certificates import duty, openssl_tool
from minprov.duties.certificates.contents import (
    Contents,
    encode_pem,
    files_of,
    keys_without_certificate,
)
from minprov.duties.certificates.duty import find_certificates_path, parse_envelope
from minprov.duties.certificates.libcrypto import LibCrypto
from minprov.duties.certificates.openssl_tool import OpensslTool
from minprov.duties.certificates.settings import Options
from minprov.emulator.faults import parse_faults
from minprov.emulator.platform import Emulator
from minprov.emulator.vm import SAMPLE_VM, VirtualMachine
from minprov.errors import ProvisioningError, Reason
from minprov.formats.thumbprint import thumbprint

BOTH = pytest.mark.parametrize("make", [LibCrypto, OpensslTool])
PBE = ("-keypbe", "PBE-SHA1-3DES", "-certpbe")


def openssl(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, a certificate by it, and one of another key."""
    place = tmp_path_factory.mktemp("made")
    for name in ("authority", "other"):
        files = ("-keyout", place / f"{name}.key", "-out", place / f"{name}.crt")
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", f"/CN={name}", *files)
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=web", "-keyout", place / "web.key", "-out", place / "r"
    )
    authority = ("-CA", place / "authority.crt", "-CAkey", place / "authority.key", "-CAcreateserial")
    openssl("x509", "-req", "-in", place / "r", *authority, "-days", "9", "-out", place / "web.crt")
    return place


def print_of(certificate: Path) -> str:
    shown = openssl("x509", "-in", certificate, "-noout", "-fingerprint", "-sha1").decode()
    return shown.partition("=")[2].strip().replace(":", "")


def pfx(place: Path, *flags: str | Path) -> bytes:
    key = ("-inkey", place / "web.key", "-in", place / "web.crt")
    return openssl("pkcs12", "-export", *key, "-passout", "pass:", *flags)


def opened(make: Callable[[], LibCrypto | OpensslTool], contents: bytes, place: Path, cipher: str) -> Contents:
    async def main() -> Contents:
        crypto = make()
        recipient = place / "recipient.pem"
        recipient.write_bytes(encode_pem("CERTIFICATE", await crypto.certificate()))
        seal = ("cms", "-encrypt", "-binary", "-outform", "DER", cipher, recipient)
        return await crypto.open(openssl(*seal, stdin=contents))

    return asyncio.run(main())


@BOTH
@pytest.mark.parametrize("cipher", ["-aes-128-cbc", "-des-ede3-cbc"])
@pytest.mark.parametrize(
    "flags",
    [
        (),
        (*PBE, "PBE-SHA1-3DES", "-macalg", "sha1"),
        (*PBE, "PBE-SHA1-RC2-40", "-macalg", "sha1", "-legacy"),
        ("-nomac",),
        ("-keypbe", "NONE", "-certpbe", "NONE"),
    ],
    ids=["AES", "3DES", "RC2", "MAC-less", "plain"],
)
def test_what_openssl_made_is_opened(
    make: Callable[[], LibCrypto | OpensslTool], cipher: str, flags: tuple[str, ...], made: Path, tmp_path: Path
) -> None:
    contents = opened(make, pfx(made, *flags), tmp_path, cipher)
    files = dict(files_of(contents))
    name = print_of(made / "web.crt")
    assert set(files) == {f"{name}.crt", f"{name}.prv"}
    (tmp_path / "key").write_bytes(files[f"{name}.prv"])
    (tmp_path / "certificate").write_bytes(files[f"{name}.crt"])
    of_key = openssl("pkey", "-in", tmp_path / "key", "-pubout")
    assert of_key == openssl("x509", "-in", tmp_path / "certificate", "-noout", "-pubkey")


@BOTH
def test_a_chain_is_kept_whole(make: Callable[[], LibCrypto | OpensslTool], made: Path, tmp_path: Path) -> None:
    contents = opened(make, pfx(made, "-certfile", made / "authority.crt"), tmp_path, "-aes-128-cbc")
    expected = {f"{print_of(made / 'web.crt')}.crt", f"{print_of(made / 'web.crt')}.prv"}
    assert {name for name, _ in files_of(contents)} == expected | {f"{print_of(made / 'authority.crt')}.crt"}


@BOTH
def test_a_key_without_its_certificate_loses_no_other(
    make: Callable[[], LibCrypto | OpensslTool], made: Path, tmp_path: Path
) -> None:
    lone = openssl("pkcs12", "-export", "-nocerts", "-inkey", made / "web.key", "-passout", "pass:")
    contents = opened(make, lone, tmp_path, "-aes-128-cbc")
    assert (list(files_of(contents)), keys_without_certificate(contents)) == ([], 1)


@BOTH
@pytest.mark.parametrize("damage", ["another recipient", "no envelope", "no PKCS #12"])
def test_what_cannot_be_opened_is_said(
    make: Callable[[], LibCrypto | OpensslTool], damage: str, made: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        crypto = make()
        recipient = made / "other.crt"
        certificate = await crypto.certificate()
        if damage == "no PKCS #12":
            recipient = tmp_path / "own.pem"
            recipient.write_bytes(encode_pem("CERTIFICATE", certificate))
        contents = b"text" if damage == "no PKCS #12" else pfx(made)
        envelope = openssl("cms", "-encrypt", "-binary", "-outform", "DER", "-aes-128-cbc", recipient, stdin=contents)
        await crypto.open(b"\x30\x03abc" if damage == "no envelope" else envelope)

    with pytest.raises(ProvisioningError) as caught:
        asyncio.run(main())
    assert caught.value.reason is Reason.CERTIFICATES_UNREADABLE


def test_a_thumbprint_is_openssls(made: Path) -> None:
    der = openssl("x509", "-in", made / "web.crt", "-outform", "DER")
    assert thumbprint(der) == print_of(made / "web.crt")


def test_no_key_is_shown(made: Path, tmp_path: Path) -> None:
    contents = opened(LibCrypto, pfx(made), tmp_path, "-aes-128-cbc")
    assert repr(contents) == "Contents(1 certificates, 1 keys)"
    assert repr(contents.keys[0]) == "Item(***)"


GOAL_STATE = (
    "<GoalState><Container><RoleInstanceList><RoleInstance><Configuration>{}</Configuration></RoleInstance>"
    "</RoleInstanceList></Container></GoalState>"
)


@pytest.mark.parametrize(
    ("element", "path"),
    [
        ("<Certificates>http://168.63.129.16:80/machine/a/b?comp=certificates&amp;i=1</Certificates>", "/machine/a/b"),
        ("<Certificates>http://elsewhere/machine/a/b?comp=certificates&amp;i=1</Certificates>", "/machine/a/b"),
        ("<Certificates/>", None),
        ("", None),
    ],
)
def test_wireserver_alone_is_asked(element: str, path: str | None) -> None:
    found = find_certificates_path(GOAL_STATE.format(element).encode())
    assert found == (path and f"{path}?comp=certificates&i=1")


def test_a_document_without_data_has_none() -> None:
    assert parse_envelope(b"<CertificateFile><Data/></CertificateFile>") is None


@pytest.mark.parametrize("body", ["<Data>?</Data>", "<Format>Other</Format><Data>AAAA</Data>"])
def test_a_document_of_another_kind_is_refused(body: str) -> None:
    with pytest.raises(ProvisioningError) as caught:
        parse_envelope(f"<CertificateFile>{body}</CertificateFile>".encode())
    assert caught.value.reason is Reason.CERTIFICATES_UNREADABLE


def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duty, "LibCrypto", lambda: (_ for _ in ()).throw(OSError("no library")))


@pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")
@pytest.mark.parametrize("library", [True, False], ids=["libcrypto", "openssl"])
def test_files_are_roots_alone_and_another_vms_are_removed(
    library: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not library:
        without_library(monkeypatch)
    options = Options(Policy.REQUIRED, str(tmp_path / "certificates"))

    async def fetch(vm_id: str, *, dry_run: bool = False) -> dict[str, str]:
        async with Emulator(replace(SAMPLE_VM)) as platform:
            work = duty.run(options, platform.wireserver_url, str(tmp_path), vm_id, dry_run=dry_run)
            files: dict[str, str] = (await work)["files"]
            return files

    async def main() -> None:
        assert set((await fetch("a", dry_run=True)).values()) == {"planned"}
        assert not (tmp_path / "certificates").exists()
        first = await fetch("a")
        assert set(first.values()) == {"changed"}
        assert sorted(path.suffix for path in (tmp_path / "certificates").iterdir()) == [".crt", ".prv"]
        for path in (tmp_path / "certificates").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "certificates").stat().st_mode) == 0o700
        assert set((await fetch("a")).values()) == {"unchanged"}
        foreign = tmp_path / "certificates" / "0000.prv"
        foreign.touch()
        kept = tmp_path / "certificates.json"
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"files": ["0000.prv"]}))
        await fetch("b")
        assert not foreign.exists()

    asyncio.run(main())


def fetched_keys(vm: VirtualMachine) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        async with Emulator(vm) as platform:
            return await duty.fetch_public_keys(platform.wireserver_url)

    return asyncio.run(main())


def test_the_key_of_a_certificate_is_the_line_that_ssh_makes_of_it(made: Path, tmp_path: Path) -> None:
    chain = pfx(made, "-certfile", made / "authority.crt")
    (tmp_path / "web.pem").write_bytes(openssl("x509", "-in", made / "web.crt", "-noout", "-pubkey"))
    convert = ["ssh-keygen", "-i", "-m", "PKCS8", "-f", str(tmp_path / "web.pem")]
    line = subprocess.run(convert, capture_output=True, text=True, check=True).stdout.strip()
    found = fetched_keys(replace(SAMPLE_VM, certificates=chain))
    assert found["error"] is None
    assert found["public_keys"][print_of(made / "web.crt")] == line
    assert print_of(made / "authority.crt") in found["public_keys"]


def test_certificates_that_cannot_be_opened_are_told_beside_no_key() -> None:
    found = fetched_keys(replace(SAMPLE_VM, certificates=b"no PKCS #12"))
    assert (found["public_keys"], found["error"]["reason"]) == ({}, "certificates cannot be decrypted")


def test_an_image_with_neither_library_nor_program_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    without_library(monkeypatch)
    monkeypatch.setattr(openssl_tool, "find_tool", lambda _: None)
    error = fetched_keys(SAMPLE_VM)["error"]
    assert (error["reason"], error["data"]["tool"]) == ("required system tool not found", "openssl")


@pytest.mark.parametrize("status", [400, 403])
def test_a_cipher_that_is_refused_is_not_asked_for_again(status: int) -> None:
    async def main() -> list[str]:
        faults = parse_faults({"certificates": [{"status": status}]}, file=Path("none"))
        async with Emulator(SAMPLE_VM, faults=faults) as platform:
            found = await duty.fetch_public_keys(platform.wireserver_url)
            assert (len(found["public_keys"]), found["error"]) == (1, None)
            asked = [exchange.request for exchange in platform.requests if exchange.endpoint == "certificates"]
            return [request.headers["x-ms-cipher-name"] for request in asked]

    assert asyncio.run(main()) == ["AES128_CBC", "DES_EDE3_CBC"]


def test_off_it_does_nothing(tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.touch()
    assert command.run(["--config", str(config)]) == os.EX_OK
