"""What boot loaders, kernels and initramfs are read as: whatever the bytes, a value or a `ProvisioningError`."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minprov.errors import ProvisioningError
from minprov.formats.boot_entries import BootEntry, parse_extlinux, parse_grub, parse_grubenv, parse_specified
from minprov.formats.fstab import parse_fstab
from minprov.formats.grub_core import parse_configurations
from minprov.formats.pe import parse_pe
from minprov.image.family import parse_assignments
from minprov.image.initramfs import read_initramfs
from minprov.image.kernels import release_of
from minprov.image.network import read_networks
from minprov.image.services import Services
from minprov.image.tree import Tree
from tests.image.recorded import (
    CONFIG,
    MEMDISK,
    MODULE,
    archive,
    grub_modules,
    initramfs,
    kernel_image,
    tar_archive,
    unified_image,
    write_entry,
)
from tests.image.signing import signed

UKI = unified_image("6.1", "root=LABEL=root", initramfs("bin/sh", "gzip"))


def test_grub_variables_are_replaced() -> None:
    text = (
        'set kernelopts="ro quiet"\nmenuentry "Linux" {\n linuxefi ($root)/vmlinuz root=UUID=1 $kernelopts ${none}\n}\n'
    )
    (entry,) = parse_grub("grub.cfg", text, {})
    assert entry == BootEntry("grub.cfg", 3, "/vmlinuz", (), "root=UUID=1 ro quiet", "Linux")


def test_the_environment_block_overrules_grub_cfg() -> None:
    environment = parse_grubenv("# GRUB Environment Block\nkernelopts=root=UUID=2 ro\n####")
    (entry,) = parse_grub("grub.cfg", 'set kernelopts="root=UUID=1"\nlinux /vmlinuz $kernelopts\n', environment)
    assert entry.options == "root=UUID=2 ro"


def test_entries_for_repairs_are_known() -> None:
    entry = BootEntry("grub.cfg", 1, "/vmlinuz", (), "ro")
    assert not entry.is_rescue
    assert entry._replace(options="ro single").is_rescue
    assert entry._replace(title="Linux (recovery mode)").is_rescue
    assert entry._replace(kernel="/vmlinuz-0-rescue-ab12").is_rescue


def test_initrds_of_extlinux_are_those_of_the_entry() -> None:
    text = "LABEL a\n KERNEL /a\n APPEND initrd=/a.img,/b.img ro\nLABEL b\n LINUX /b\n INITRD /c.img\n"
    entries = parse_extlinux("extlinux.conf", text)
    assert [(entry.kernel, entry.initrds, entry.options) for entry in entries] == [
        ("/a", ("/a.img", "/b.img"), "ro"),
        ("/b", ("/c.img",), ""),
    ]


def test_sections_and_signature_of_an_efi_program() -> None:
    program = signed(UKI, "an authority")
    pe = parse_pe(lambda offset, length: program[offset : offset + length])
    assert pe is not None
    assert pe.architecture == "x64"
    assert set(pe.sections) == {".uname", ".cmdline", ".linux", ".initrd"}
    assert pe.certificates
    assert sum(pe.certificates) == len(program)
    assert b"an authority: signer" in program[pe.certificates.offset :]


def test_grub_itself_may_have_configurations() -> None:
    archive = tar_archive("boot/grub/grub.cfg", "linux /vmlinuz ro")
    section = grub_modules({MODULE: b"\x7fELF", MEMDISK: archive, CONFIG: b"set prefix=(memdisk)\n"})
    assert parse_configurations(section) == ["set prefix=(memdisk)\n", "linux /vmlinuz ro"]
    assert parse_configurations(section[:-10]) == ["set prefix=(me", "linux /vmlinuz ro"]


def test_what_grub_mkstandalone_makes_is_read(tmp_path: Path) -> None:
    if not (shutil.which("grub-mkstandalone") and Path("/usr/lib/grub/x86_64-efi").exists()):
        pytest.skip("needs grub-efi-amd64-bin")
    config, program = tmp_path / "grub.cfg", tmp_path / "grubx64.efi"
    config.write_text("linux /vmlinuz root=UUID=1 ro\n")
    argv = ["grub-mkstandalone", "-O", "x86_64-efi", "--install-modules=linux normal", "--locales=", "--themes=",
            "-o", str(program), f"boot/grub/grub.cfg={config}"]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    data = program.read_bytes()
    pe = parse_pe(lambda offset, length: data[offset : offset + length])
    assert pe is not None
    place = pe.sections["mods"]
    assert "linux /vmlinuz root=UUID=1 ro\n" in parse_configurations(data[place.offset : place.offset + place.size])


@given(st.binary(max_size=2000), st.binary(max_size=600))
@example(tar_archive("grub.cfg", "linux /a"), b"")
def test_a_damaged_grub_ends(data: bytes, more: bytes) -> None:
    parse_configurations(struct.pack("<4sIQQ", b"mimg", 0, 24, 24 + len(data)) + data)
    parse_configurations(grub_modules({MEMDISK: data, CONFIG: more}))


def test_variables_may_be_made_of_others() -> None:
    text = 'set a=""\nset b="$a console=ttyS0"\nset c="ro $b"\nlinux$suf /vmlinuz $c\n'
    (entry,) = parse_grub("grub.cfg", text, {"a": "root=LABEL=ROOT"})
    assert entry.options == "ro root=LABEL=ROOT console=ttyS0"


@given(st.binary(max_size=600))
@example(UKI[:200])
@example(kernel_image("6.1")[:0x230])
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    parse_pe(lambda offset, length: data[offset : offset + length])
    release_of(io.BytesIO(data))


@given(st.data())
def test_an_archive_with_changed_bytes_is_a_value_or_an_error(data: st.DataObject) -> None:
    whole = bytearray(archive({"bin/sh": "text", "etc/cmdline.d/root.conf": "root=LABEL=root"}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ProvisioningError):
        read_initramfs(io.BytesIO(bytes(whole)))


@given(st.text(max_size=300))
@example("linux\ninitrd\nset a=\nmenuentry ''\nlinux /a $a ${b")
@example("a='b\nLABEL\nAPPEND x\nINITRD\n")
def test_any_text_is_a_value(text: str) -> None:
    parse_grub("file", text, parse_grubenv(text))
    parse_specified("file", text, {})
    parse_extlinux("file", text)
    parse_fstab(text)
    parse_assignments(text)


@given(st.text(max_size=200))
@example("[Match]\nName=\n[Network]\nDHCP")
@example("network:\n ethernets:\n  a:\n   match:\n    macaddress: x\n")
def test_any_text_is_a_network(tmp_path_factory: object, text: str) -> None:
    root = Path(tmp_path_factory.mktemp("tree"))  # type: ignore[attr-defined]
    for path in (
        *("/etc/systemd/network/a.network", "/etc/netplan/a.yaml", "/etc/network/interfaces"),
        *("/etc/NetworkManager/system-connections/a", "/etc/sysconfig/network-scripts/ifcfg-a"),
    ):
        write_entry(root, path, "")
        (root / path[1:]).write_text(text, encoding="utf-8", errors="replace")
    for name in ("systemd-networkd", "NetworkManager", "networking", "network"):
        write_entry(root, f"/etc/runlevels/default/{name} -> /etc/init.d/{name}", "")
    write_entry(root, "/usr/sbin/netplan", "")
    tree = Tree(str(root))
    read_networks(tree, Services(tree))
