"""The values the sources deliver, named with the platform's own words.

Parsers create these and nothing else does: a value that exists is well formed. Absent is `None`, never an empty string.
"""

from typing import NamedTuple


class Secret:
    """A string that shows itself only when asked: `repr` and `str` are ``***``."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def reveal(self) -> str:
        """Return the secret itself, for the one place that must have it."""
        return self._value


class SshPublicKey(NamedTuple):
    """A key as a source delivered it: `value` is absent when the media names a certificate by fingerprint only."""

    value: str | None
    path: str | None = None
    fingerprint: str | None = None


class OvfEnv(NamedTuple):
    """The LinuxProvisioningConfigurationSet and PlatformSettings of an ovf-env."""

    hostname: str
    username: str | None = None
    password: Secret | None = None
    custom_data: bytes | None = None
    disable_ssh_password_authentication: bool | None = None
    ssh_public_keys: tuple[SshPublicKey, ...] = ()
    preprovisioned_vm: bool = False
    preprovisioned_vm_type: str | None = None
    provision_guest_proxy_agent: bool = False


class InstanceMetadata(NamedTuple):
    """What IMDS says of this VM. It never carries the password or customData."""

    vm_id: str | None = None
    computer_name: str | None = None
    admin_username: str | None = None
    disable_password_authentication: bool | None = None
    ssh_public_keys: tuple[SshPublicKey, ...] = ()
    user_data: bytes | None = None
    has_custom_data: bool | None = None
    pps_type: str | None = None


class GoalState(NamedTuple):
    """What a health report must echo to be accepted."""

    incarnation: str
    container_id: str
    instance_id: str
