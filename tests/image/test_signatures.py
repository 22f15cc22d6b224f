"""Signatures are really verified: of what is really signed, and then changed."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from minprov.errors import ProvisioningError, Reason
from minprov.image import signatures
from minprov.image.checks.outcome import run_checks
from minprov.image.findings import Finding
from minprov.image.signatures import Verdict, read_program, verify
from minprov.image.subject import Purpose, Subject
from minprov.image.tree import Tree
from tests.image.recorded import VENDOR, make_tree, write_entry
from tests.image.signing import MICROSOFT, der, efi_program, shim, signed

LOADER, KERNEL, GRUB = (
    "/boot/efi/EFI/BOOT/BOOTX64.EFI",
    "/boot/vmlinuz-6.1.0-27-cloud-amd64",
    "/boot/efi/EFI/BOOT/grubx64.efi",
)
X509_LIST = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_tree("debian", tmp_path)
    write_entry(tmp_path, f"{LOADER} shim", f"{MICROSOFT}\n{VENDOR}")
    write_entry(tmp_path, f"{GRUB} signed", VENDOR)
    write_entry(tmp_path, f"{KERNEL} signed-kernel 6.1.0-27-cloud-amd64", VENDOR)
    return tmp_path


def findings(tree: Path, *, trusted_launch: bool = True) -> list[Finding]:
    outcome = run_checks(Subject(Tree(str(tree)), None, Purpose(2, trusted_launch=trusted_launch)))
    return [finding for finding in outcome.findings if finding.id == "secure-boot"]


def test_a_chain_that_holds_has_no_finding(tree: Path) -> None:
    assert findings(tree) == []


@pytest.mark.parametrize("path", [LOADER, GRUB, KERNEL])
@pytest.mark.parametrize("trusted_launch", [True, False])
def test_a_program_that_was_changed_fails(path: str, trusted_launch: bool, tree: Path) -> None:
    file = tree / path.lstrip("/")
    program = bytearray(file.read_bytes())
    program[0x200] ^= 1
    file.write_bytes(program)
    (found,) = findings(tree, trusted_launch=trusted_launch)
    assert (found.severity.value, found.file) == ("fails", path)
    assert "changed after it was signed" in found.what


def test_a_program_that_is_cut_off_fails(tree: Path) -> None:
    file = tree / KERNEL.lstrip("/")
    file.write_bytes(file.read_bytes()[:-100])
    (found,) = findings(tree)
    assert (found.severity.value, found.file) == ("fails", KERNEL)


@pytest.mark.parametrize("path", [GRUB, KERNEL])
def test_a_program_that_shim_does_not_start_is_a_risk(path: str, tree: Path) -> None:
    kind = "signed" if path == GRUB else "signed-kernel 6.1.0-27-cloud-amd64"
    write_entry(tree, f"{path} {kind}", "somebody else")
    (found,) = findings(tree)
    assert (found.severity.value, found.file) == ("risk", path)
    assert "none of shim's" in found.what


def test_a_second_loader_without_signature_fails(tree: Path) -> None:
    (tree / GRUB.lstrip("/")).write_bytes(efi_program({".text": b"code"}))
    (found,) = findings(tree)
    assert (found.severity.value, found.file) == ("fails", GRUB)


def test_without_sbverify_it_is_unknown_and_the_rest_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "find_tool", lambda tool: None)
    (found,) = findings(tree)
    assert found.severity.value == "unknown"
    assert "sbverify is not installed" in found.what
    assert "sbsigntool" in found.fix
    (tree / GRUB.lstrip("/")).write_bytes(efi_program({".text": b"code"}))
    assert [finding.severity.value for finding in findings(tree)] == ["fails", "unknown"]


def test_shim_may_have_several_certificates(tmp_path: Path) -> None:
    first, second = der("another vendor"), der(VENDOR)
    lists = b"".join(
        X509_LIST + struct.pack("<III", 28 + 16 + len(each), 0, 16 + len(each)) + bytes(16) + each
        for each in (first, second)
    )
    table = struct.pack("<IIII", len(lists), 0, 16, 0) + lists
    loader, kernel = tmp_path / "shim.efi", tmp_path / "kernel.efi"
    loader.write_bytes(signed(efi_program({".vendor_cert": table}), MICROSOFT))
    kernel.write_bytes(signed(efi_program({".text": b"code"}), VENDOR))
    with loader.open("rb") as file:
        program = read_program(file)
    assert program is not None
    assert program.vendor == (first, second)
    with kernel.open("rb") as file:
        assert verify(file, program.vendor) is Verdict.HOLDS
        assert verify(file, [first]) is Verdict.FOREIGN


@pytest.mark.parametrize("length", [0, 15, 16, 20, 200])
def test_a_damaged_table_of_certificates_has_none(length: int, tmp_path: Path) -> None:
    file = tmp_path / "shim.efi"
    file.write_bytes(efi_program({".vendor_cert": (struct.pack("<IIII", 1 << 31, 0, 16, 0) + b"\xff" * 999)[:length]}))
    with file.open("rb") as stream:
        program = read_program(stream)
    assert program is not None
    assert program.vendor == ()


def test_what_is_too_large_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "large.efi"
    file.write_bytes(shim(VENDOR))
    os.truncate(file, signatures.MAX_PROGRAM + 1)
    with file.open("rb") as stream, pytest.raises(ProvisioningError) as raised:
        verify(stream, ())
    assert raised.value.reason is Reason.IMAGE_UNREADABLE


def test_sbverify_that_does_not_end_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbverify = tmp_path / "sbverify"
    sbverify.write_text("#!/bin/sh\nexec sleep 60\n")
    sbverify.chmod(0o755)
    monkeypatch.setattr(signatures, "find_tool", lambda tool: str(sbverify))
    monkeypatch.setattr(signatures, "SIGNATURE_LIMIT", 0.2)
    file = tmp_path / "shim.efi"
    file.write_bytes(shim(VENDOR))
    with file.open("rb") as stream, pytest.raises(ProvisioningError, match="no answer"):
        verify(stream, ())
