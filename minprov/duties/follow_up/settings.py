"""What can be configured of what is told and asked once the VM is ready: all of it is off by default."""

from minprov.actions import Policy
from minprov.config import Schema, Setting
from minprov.definitions import NamedTuple


class Options(NamedTuple):
    """Every setting, with its default."""

    role_properties: Policy = Policy.OFF
    dns_check: Policy = Policy.OFF


SETTINGS = {
    "role-properties.policy": Setting(
        "role_properties", "Tell WireServer the fingerprint of a host key, once for each VM.", after_ready=True
    ),
    "dns-check.policy": Setting(
        "dns_check", "Ask the platform's DNS whether it knows the hostname, at every boot.", after_ready=True
    ),
}
SCHEMA = Schema(Options, SETTINGS)
