"""The keys of which an ovf-env has no more than their certificate's thumbprint: the certificates are WireServer's.

To ask for those is the work of a duty, of which this knows its program and what that prints.
"""

from __future__ import annotations

import json

from minprov.errors import ProvisioningError, Reason, excerpt
from minprov.formats.thumbprint import normalise_thumbprint
from minprov.machine.duty_record import error_in
from minprov.machine.own_program import own_argv, own_environment
from minprov.machine.tools import ENVIRONMENT, run_tool
from minprov.model import Faults, OvfEnv, SshPublicKey

PROGRAM = ("certificates", "--public-keys")
PROPERTY = "ssh_public_keys"


async def with_fetched_keys(ovf: OvfEnv, *, limit: float) -> OvfEnv:
    """Return the ovf-env with the keys whose certificates were delivered; the first that was not is a fault of it."""
    faults, found = Faults(ovf.faults), dict[str, str]()
    try:
        found = await _fetch(limit)
    except ProvisioningError as error:
        faults.setdefault(PROPERTY, error)
    keys = tuple(_with_value(key, found) for key in ovf.ssh_public_keys)
    for key in keys:
        if key.value is None:
            shown = excerpt(key.fingerprint or "")
            faults.setdefault(PROPERTY, ProvisioningError(Reason.CERTIFICATE_NOT_DELIVERED, thumbprint=shown))
    return ovf._replace(ssh_public_keys=keys, faults=faults)


async def _fetch(limit: float) -> dict[str, str]:
    printed = await run_tool(own_argv(*PROGRAM), limit=limit, environment=ENVIRONMENT | own_environment())
    document = json.loads(printed)
    if error := error_in(document):
        raise error
    keys: dict[str, str] = document["public_keys"]
    return keys


def _with_value(key: SshPublicKey, found: dict[str, str]) -> SshPublicKey:
    if key.value is not None:
        return key
    return key._replace(value=found.get(normalise_thumbprint(key.fingerprint or "") or ""))
