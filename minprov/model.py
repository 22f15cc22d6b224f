"""The values the sources deliver and what is chosen among them, named with the platform's own words.

Parsers create these and nothing else does: a value that exists is well formed. Absent is `None`, never an empty string.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError

T = TypeVar("T")


class Faults(dict[str, ProvisioningError]):
    """What is wrong with the values that cannot be used, by property, in the names of `OvfEnv`."""

    def value(self, name: str, read: Callable[[], T]) -> T | None:
        """Return what `read` returns, or None and keep the error, which is then that property's and no other's."""
        try:
            return read()
        except ProvisioningError as error:
            self.setdefault(name, error)
            return None


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
    """The LinuxProvisioningConfigurationSet and PlatformSettings of an ovf-env.

    A value that cannot be used is absent, and `faults` says why. `passed_over` names what is there and says nothing.
    """

    hostname: str | None = None
    username: str | None = None
    password: Secret | None = None
    custom_data: bytes | None = None
    disable_ssh_password_authentication: bool | None = None
    ssh_public_keys: tuple[SshPublicKey, ...] = ()
    preprovisioned_vm: bool = False
    preprovisioned_vm_type: str | None = None
    provision_guest_proxy_agent: bool = False
    provision_guest_agent: bool | None = None
    faults: Faults = Faults()
    passed_over: tuple[str, ...] = ()


class InstanceMetadata(NamedTuple):
    """What IMDS says of this VM. It never carries the password or customData.

    `faults` and `passed_over` are as in `OvfEnv`.
    """

    vm_id: str | None = None
    computer_name: str | None = None
    admin_username: str | None = None
    disable_password_authentication: bool | None = None
    ssh_public_keys: tuple[SshPublicKey, ...] = ()
    user_data: bytes | None = None
    has_custom_data: bool | None = None
    pps_type: str | None = None
    asks_nothing: bool = False
    """Whether host name, user and keys are there and empty: a VM made from a specialised image or a restored disk."""
    faults: Faults = Faults()
    passed_over: tuple[str, ...] = ()


class GoalState(NamedTuple):
    """What a health report must echo to be accepted."""

    incarnation: str
    container_id: str
    instance_id: str


class Evidence(NamedTuple):
    """What the sources delivered: the media's part is absent without media, `instance` without IMDS.

    `password_hash` is of the password in `ovf`, which no other source has, and is there whenever that is.
    """

    ovf: OvfEnv | None = None
    password_hash: Secret | None = None
    redacted_ovf_env: bytes | None = None
    custom_data_bin: bytes | None = None
    device: str | None = None
    instance: InstanceMetadata | None = None
    no_disc: bool = False
    """Whether every place was looked at and there is none; without it the media may be there and unreadable."""


class Chosen(NamedTuple, Generic[T]):
    """A value and the source it was chosen from: ``media``, ``imds`` or ``config``."""

    value: T
    source: str


class Properties(NamedTuple):
    """The VM-create properties as chosen among the sources; absent ones are in none of them."""

    hostname: Chosen[str] | None
    username: Chosen[str] | None
    password: Chosen[Secret] | None
    ssh_public_keys: Chosen[tuple[str, ...]] | None
    disable_ssh_password_authentication: Chosen[bool] | None
    custom_data: Chosen[bytes] | None
    user_data: Chosen[bytes] | None
    shell: Chosen[str]
    groups: Chosen[tuple[str, ...]]
