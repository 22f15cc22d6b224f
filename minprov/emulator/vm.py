"""The virtual machine the emulated platform believes in: the one source of the goal state, IMDS and the ovf-env.

`VirtualMachine` has a sensible fake value for everything that a platform always knows, and `None` for what a person may
or may not have given at creation. `SAMPLE_VM` has all of it. `load_vm` reads the same fields from a TOML file, with
dashes for underscores, and `dump_vm` writes one. Nothing here knows how the values look on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from minprov.model import Secret, SshPublicKey

from .tables import content, convert_table, flag, format_value, number, read_table, secret, text, text_table, texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .tables import Convert

# Azure's published list: MicrosoftDocs/azure-compute-docs, instance-metadata-service.md, "Supported API versions".
# fmt: off
IMDS_API_VERSIONS = (
    "2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01",
    "2018-04-02", "2018-10-01", "2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01",
    "2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01", "2020-06-01", "2020-07-15",
    "2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01",
    "2021-05-01", "2021-08-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13",
    "2023-07-01", "2023-11-15", "2024-03-15", "2024-07-17", "2025-04-07",
)
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualMachine:
    """A VM as its creator and the platform describe it.

    `hostname` is the computer name of the osProfile; `name` is that of the resource, which may be no valid host name.
    """

    hostname: str = "web-01"
    username: str = "azureuser"
    password: Secret | None = None
    disable_password_authentication: bool | None = None
    ssh_public_keys: tuple[SshPublicKey, ...] = ()
    custom_data: bytes | None = None
    user_data: bytes | None = None
    # A PKCS #12 file with an empty password, as of Key Vault; without it, one of the tenant's is made.
    certificates: bytes | None = None

    preprovisioned_vm: bool = False
    preprovisioned_vm_type: str | None = None
    # Whether a VM from a pool has got its owner; until then IMDS has no ovf-env for it.
    reprovisioned: bool = False
    provision_guest_agent: bool = True
    provision_guest_proxy_agent: bool = False

    vm_id: str = "7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14"
    name: str = "web-01"
    location: str = "westeurope"
    vm_size: str = "Standard_D2s_v5"
    resource_group: str = "sample-rg"
    subscription_id: str = "00000000-0000-4000-8000-000000000001"
    mac_address: str = "000D3A123456"
    private_ip_address: str = "10.0.0.4"

    incarnation: int = 1
    container_id: str = "5b6c9a1e-2a6f-4a0c-9a37-0c7de0a6f3b2"
    deployment_id: str = "1f0e8c52-6d0b-4c62-b1f3-7b2f4a8f9d10"

    imds_api_versions: tuple[str, ...] = IMDS_API_VERSIONS
    # IMDS has been seen to leave out the osProfile of a new VM for readers without extended=true (azure-init#134).
    imds_partial_unless_extended: bool = False

    @property
    def instance_id(self) -> str:
        """Return the role instance id: the deployment, then the resource's name behind an underscore."""
        return f"{self.deployment_id}._{self.name}"


SAMPLE_VM = VirtualMachine(
    password=Secret("Sample-Passw0rd!"),
    disable_password_authentication=False,
    ssh_public_keys=(
        SshPublicKey(
            value="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBMcHWTvNl7ozF7F7qgeovwoswR3mlYkSNEabFK8ZeEL azureuser@sample",
            path="/home/azureuser/.ssh/authorized_keys",
        ),
    ),
    custom_data=b"#!/bin/sh\necho 'customData of the sample VM' >/run/sample\n",
)


def load_vm(path: str | Path) -> VirtualMachine:
    """Read a VM from a TOML file; what it does not say has the default of `VirtualMachine`.

    Raises: ProvisioningError(CONFIG_INVALID), naming the file and the key.
    """
    file = Path(path)
    return VirtualMachine(**convert_table(read_table(file), VM_CONVERTERS, file=file))


def dump_vm(vm: VirtualMachine) -> str:
    """Return the TOML file that `load_vm` makes the same VM from; a password is in it as it is."""
    values = {name.replace("_", "-"): getattr(vm, name) for name in VM_CONVERTERS}
    return "".join(f"{key} = {format_value(value)}\n" for key, value in values.items() if value is not None)


def _keys(value: object, directory: Path) -> tuple[SshPublicKey, ...]:
    if not isinstance(value, list):
        raise TypeError("must be a list of keys, each a string or a table")
    return tuple(_key(item, directory) for item in cast("list[object]", value))


def _key(value: object, directory: Path) -> SshPublicKey:
    if isinstance(value, str):
        return SshPublicKey(value=value)
    key = text_table(value, directory)
    if unknown := key.keys() - {"value", "path", "fingerprint"}:
        raise ValueError(f"a key has value, path and fingerprint, not {', '.join(sorted(unknown))}")
    return SshPublicKey(value=key.get("value"), path=key.get("path"), fingerprint=key.get("fingerprint"))


VM_CONVERTERS: Mapping[str, Convert] = {
    "hostname": text,
    "username": text,
    "password": secret,
    "disable_password_authentication": flag,
    "ssh_public_keys": _keys,
    "custom_data": content,
    "user_data": content,
    "certificates": content,
    "preprovisioned_vm": flag,
    "preprovisioned_vm_type": text,
    "reprovisioned": flag,
    "provision_guest_agent": flag,
    "provision_guest_proxy_agent": flag,
    "vm_id": text,
    "name": text,
    "location": text,
    "vm_size": text,
    "resource_group": text,
    "subscription_id": text,
    "mac_address": text,
    "private_ip_address": text,
    "incarnation": number,
    "container_id": text,
    "deployment_id": text,
    "imds_api_versions": texts,
    "imds_partial_unless_extended": flag,
}
