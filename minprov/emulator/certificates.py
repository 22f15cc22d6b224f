"""The certificates document: the deployment's certificate, wrapped for one guest's transport key.

The guest sends a certificate of its own; back comes a PKCS #12 file with an empty password, enveloped (CMS, RFC 5652)
for that certificate and in base64. waagent asks for it before it reports health, cloud-init when a key of the ovf-env
is given by fingerprint only. (Azure/WALinuxAgent, common/protocol/goal_state.py; openssl(1) does the cryptography.)
"""

from __future__ import annotations

import base64
import functools
import subprocess
import tempfile
import textwrap
from pathlib import Path

CIPHERS = {"AES128_CBC": "-aes-128-cbc", "DES_EDE3_CBC": "-des-ede3-cbc"}
_TIMEOUT = 30

_DOCUMENT = """\
<?xml version="1.0" encoding="utf-8"?>
<CertificateFile xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <Version>2010-12-15</Version>
  <Incarnation>{incarnation}</Incarnation>
  <Format>Pkcs7BlobWithPfxContents</Format>
  <Data>{data}</Data>
</CertificateFile>
"""


class OpensslError(Exception):
    """openssl(1) is missing, or could not use what it was given."""


def build_certificates(transport_certificate: str, cipher: str, pfx: bytes | None, *, incarnation: int) -> bytes:
    """Return the document for a guest whose certificate is this base64, without the PEM lines around it.

    Without a PKCS #12 file, it has the tenant's own.

    Raises: OpensslError. KeyError for a cipher that is not in `CIPHERS`.
    """
    with tempfile.TemporaryDirectory() as directory:
        recipient = Path(directory, "recipient.pem")
        lines = "\n".join(textwrap.wrap(transport_certificate, 64))
        pem = f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
        recipient.write_text(pem, encoding="ascii", errors="replace")  # openssl is the judge of what is no base64
        seal = ("cms", "-encrypt", "-binary", "-outform", "DER", CIPHERS[cipher], recipient)
        envelope = _openssl(*seal, stdin=_tenant_certificate() if pfx is None else pfx)
    data = "\n".join(textwrap.wrap(base64.b64encode(envelope).decode(), 64))
    return _DOCUMENT.format(incarnation=incarnation, data=data).encode()


@functools.cache
def _tenant_certificate() -> bytes:
    """Return a fresh key and certificate as PKCS #12; RSA, as waagent hands the key to ``openssl rsa``."""
    with tempfile.TemporaryDirectory() as directory:
        key, certificate = Path(directory, "key.pem"), Path(directory, "certificate.pem")
        subject = "/DC=Windows Azure CRP Certificate Generator/CN=TenantEncryptionCert"
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "730", "-subj", subject),
            *("-keyout", key, "-out", certificate),
        )
        return _openssl("pkcs12", "-export", "-inkey", key, "-in", certificate, "-passout", "pass:")


def _openssl(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    try:
        command = ("openssl", *arguments)
        return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=_TIMEOUT).stdout
    except subprocess.CalledProcessError as error:
        raise OpensslError(error.stderr.decode(errors="replace").strip()) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OpensslError(str(error)) from error
