"""IMDS by way of systemd-imdsd, which has the address for itself: a socket that speaks Varlink."""

from __future__ import annotations

import asyncio
import base64
import json
import socketserver
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from minprov.errors import ProvisioningError, Reason
from minprov.model import InstanceMetadata, SshPublicKey
from minprov.sources import systemd_imds
from minprov.sources.systemd_imds import INTERFACE, fetch_from_systemd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VM_ID = "7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14"
VALUES = {
    "vmId": VM_ID,
    "osProfile/computerName": "web-01",
    "osProfile/adminUsername": "azureuser",
    "osProfile/disablePasswordAuthentication": "true",
    "publicKeys/0/keyData": "ssh-ed25519 AAAA one",
    "publicKeys/0/path": "/home/azureuser/.ssh/authorized_keys",
    "publicKeys/1/keyData": "ssh-ed25519 AAAA two",
    "userData": "aGVsbG8=",
}
FOUND = InstanceMetadata(
    vm_id=VM_ID,
    computer_name="web-01",
    admin_username="azureuser",
    disable_password_authentication=True,
    ssh_public_keys=(
        SshPublicKey("ssh-ed25519 AAAA one", "/home/azureuser/.ssh/authorized_keys"),
        SshPublicKey("ssh-ed25519 AAAA two"),
    ),
    user_data=b"hello",
)


def by_the_interface(call: dict[str, Any]) -> bytes:
    """Answer as systemd-imdsd does: the value in base64, or KeyNotFound."""
    assert call["method"] == f"{INTERFACE}.Get"
    value = VALUES.get(call["parameters"]["key"].removeprefix("/instance/compute/"))
    if value is None:
        return json.dumps({"error": f"{INTERFACE}.KeyNotFound", "parameters": {}}).encode() + b"\0"
    return json.dumps({"parameters": {"data": base64.b64encode(value.encode()).decode()}}).encode() + b"\0"


@contextmanager
def daemon(path: Path, answer: Callable[[dict[str, Any]], bytes]) -> Iterator[None]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            pending = b""
            while piece := self.request.recv(4096):
                *calls, pending = (pending + piece).split(b"\0")
                for call in calls:
                    with suppress(ConnectionError):  # it has heard enough
                        self.wfile.write(answer(json.loads(call)))

    with socketserver.UnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(systemd_imds, "SOCKET", str(tmp_path / "socket"))
    return tmp_path / "socket"


def fetched(socket: Path, answer: Callable[[dict[str, Any]], bytes]) -> InstanceMetadata:
    with daemon(socket, answer):
        return asyncio.run(fetch_from_systemd(deadline=float("inf")))


def test_what_systemd_passes_on_is_what_imds_says(socket: Path) -> None:
    assert fetched(socket, by_the_interface) == FOUND


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"[]\0", "no Varlink"),
        (b"{}\0", "without data"),
        (b'{"parameters": {"data": 1}}\0', "without data"),
        (b'{"parameters": {"data": "%"}}\0', "without data"),
        (b'{"parameters": {"data": "gICA"}}\0', "utf-8"),
        (b'{"error": "io.systemd.InstanceMetadata.NotAvailable"}\0', "NotAvailable"),
        (b"{" * 100 + b"\0", "Expecting"),
        (b"x" * (2 << 20), "limit"),
        (b"", "no answer in 0.5 s"),
    ],
)
def test_any_other_answer_is_a_reason_and_not_waited_for(
    socket: Path, answer: bytes, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not answer:
        monkeypatch.setattr(systemd_imds, "IMDSD_LIMIT", 0.5)
    with pytest.raises(ProvisioningError) as error:
        fetched(socket, lambda _: answer)
    assert error.value.reason is Reason.IMDS_RESERVED
    assert detail in error.value.data["detail"]


def test_without_the_daemon_it_is_said_who_has_imds(socket: Path) -> None:
    with pytest.raises(ProvisioningError) as error:
        asyncio.run(fetch_from_systemd(deadline=float("inf")))
    assert error.value.data == {"socket": str(socket), "detail": "[Errno 2] No such file or directory"}
