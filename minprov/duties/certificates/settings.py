"""What can be configured of certificates: off by default."""

from minprov.actions import Policy
from minprov.config import Schema, Setting
from minprov.definitions import NamedTuple


class Options(NamedTuple):
    """Every setting, with its default."""

    certificates: Policy = Policy.OFF
    directory: str = "/var/lib/minprov/certificates"
    key_pairs: bool = False


SETTINGS = {
    "certificates.policy": Setting(
        "certificates",
        "Fetch the certificates that the VM was created with, and their keys, at every boot; before Ready, SSH keys "
        "that the ovf-env names by a thumbprint alone.",
    ),
    "certificates.directory": Setting(
        "directory", "Where they are put, for root alone.", r"/[^\x00]*", "an absolute path"
    ),
    "certificates.key-pairs": Setting(
        "key_pairs", "Put the key pairs that the ovf-env names (`SSH/KeyPairs`) below the user's home directory."
    ),
}
SCHEMA = Schema(Options, SETTINGS)
