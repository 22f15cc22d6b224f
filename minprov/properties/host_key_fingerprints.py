"""The fingerprints of sshd's host keys, by which a first login can be checked: in the result, and on the console."""

from __future__ import annotations

import base64
import binascii

from minprov.errors import ProvisioningError
from minprov.formats.sha2 import sha256
from minprov.machine.system import System
from minprov.properties.host_keys import find_written


def read_fingerprints(system: System) -> tuple[str, ...]:
    """Return ``TYPE SHA256:…`` of each public host key that is there, as ``ssh-keygen -l`` shows it."""
    found = []
    for path in find_written(system):
        try:
            fields = system.read_text(f"{path}.pub").split()
            key = base64.b64decode(fields[1], validate=True)
        except (ProvisioningError, IndexError, binascii.Error, ValueError):
            continue  # sshd does without its public half
        digest = base64.b64encode(sha256(key).digest()).decode().rstrip("=")
        found.append(f"{fields[0]} SHA256:{digest}")
    return tuple(found)
