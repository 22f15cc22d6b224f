"""What waagent and cloud-init ask of the platform, replayed; and the certificates document, opened as they open it.

The requests in data/emulator are those of Debian 12's unmodified packages (waagent 2.7.3.0-4.1, cloud-init 22.4.2-1),
recorded by this emulator while they fetched goal state, certificates and metadata, and reported health and status.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from minprov.emulator import certificates, host_plugin, imds, wireserver
from minprov.emulator.exchange import Reply, Request
from minprov.emulator.vm import SAMPLE_VM

RECORDS = Path(__file__).parents[1] / "data/emulator"
RULES = {"imds": imds, "wireserver": wireserver, "host-plugin": host_plugin}
REFUSED = {"vm-settings"}  # 404 tells waagent to use the goal state

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def recorded() -> list[Any]:
    return [
        pytest.param(entry, id=f"{path.stem}-{number}-{entry['endpoint']}")
        for path in sorted(RECORDS.glob("*.jsonl"))
        for number, entry in enumerate(map(json.loads, path.read_text().splitlines()))
        if entry["endpoint"] != "certificates" or shutil.which("openssl")
    ]


@pytest.mark.parametrize("entry", recorded())
def test_what_strangers_ask_is_answered(entry: dict[str, Any]) -> None:
    request = Request(
        method=entry["method"],
        path=entry["path"],
        query=tuple((name, value) for name, value in entry["query"]),
        headers=entry["headers"],
        body=entry["body"].encode(),
    )
    rules = RULES[entry["server"]]
    assert rules.endpoint(request) == entry["endpoint"]
    reply: Reply = rules.answer(SAMPLE_VM, request)
    assert reply.status == entry["status"]
    assert (reply.refusal is not None) == (entry["endpoint"] in REFUSED), reply.refusal


def certificates_request(**headers: str) -> Request:
    return Request(
        method="GET",
        path=f"/machine/{SAMPLE_VM.container_id}/{SAMPLE_VM.instance_id}",
        query=(("comp", "certificates"), ("incarnation", "1")),
        headers={"x-ms-version": "2012-11-30"} | {name.replace("_", "-"): value for name, value in headers.items()},
    )


@pytest.fixture(scope="module")
def transport(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the key and certificate an agent makes for itself, as key.pem and certificate.pem."""
    directory = tmp_path_factory.mktemp("transport")
    files = ["-keyout", f"{directory}/key.pem", "-out", f"{directory}/certificate.pem"]
    command = ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=LinuxTransport", "-newkey", "rsa:2048", *files]
    subprocess.run(command, check=True, capture_output=True)
    return directory


@needs_openssl
@pytest.mark.parametrize("cipher", sorted(certificates.CIPHERS))
def test_certificates_open_with_the_transport_key_and_an_empty_password(transport: Path, cipher: str) -> None:
    pem = (transport / "certificate.pem").read_text().splitlines()
    body = "".join(line for line in pem if "CERTIFICATE" not in line)
    reply = wireserver.answer(
        SAMPLE_VM, certificates_request(x_ms_guest_agent_public_x509_cert=body, x_ms_cipher_name=cipher)
    )
    root = ElementTree.fromstring(reply.body)
    assert (reply.status, root.findtext("Format")) == (200, "Pkcs7BlobWithPfxContents")

    message = (
        b'MIME-Version: 1.0\nContent-Type: application/x-pkcs7-mime; name="Certificates.p7m"\n'
        b"Content-Transfer-Encoding: base64\n\n" + (root.findtext("Data") or "").encode()
    )
    keys = ["-inkey", f"{transport}/key.pem", "-recip", f"{transport}/certificate.pem"]
    pfx = subprocess.run(["openssl", "cms", "-decrypt", *keys], input=message, check=True, capture_output=True).stdout
    opened = subprocess.run(
        ["openssl", "pkcs12", "-nodes", "-password", "pass:"], input=pfx, check=True, capture_output=True
    ).stdout
    assert b"BEGIN CERTIFICATE" in opened
    assert b"BEGIN PRIVATE KEY" in opened


@needs_openssl
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_ms_guest_agent_public_x509_cert": "AAAA"},
        {"x_ms_cipher_name": "DES_EDE3_CBC"},
        {"x_ms_cipher_name": "ROT13", "x_ms_guest_agent_public_x509_cert": "AAAA"},
        {"x_ms_cipher_name": "AES128_CBC", "x_ms_guest_agent_public_x509_cert": "AAAA"},
        {"x_ms_cipher_name": "AES128_CBC", "x_ms_guest_agent_public_x509_cert": base64.b64encode(b"\0" * 300).decode()},
        {"x_ms_cipher_name": "AES128_CBC", "x_ms_guest_agent_public_x509_cert": "\u00fc"},
    ],
)
def test_certificates_need_a_certificate_and_a_cipher(headers: dict[str, str]) -> None:
    assert wireserver.answer(SAMPLE_VM, certificates_request(**headers)).status == 400
