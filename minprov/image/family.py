"""Which distribution a tree is of: the words of a fix go by it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple

if TYPE_CHECKING:
    from minprov.image.tree import Tree

FAMILIES = {
    "debian": "debian",
    "ubuntu": "debian",
    "rhel": "rhel",
    "fedora": "rhel",
    "centos": "rhel",
    "ol": "rhel",
    "almalinux": "rhel",
    "rocky": "rhel",
    "azurelinux": "rhel",
    "mariner": "rhel",
    "suse": "suse",
    "opensuse": "suse",
    "sles": "suse",
    "arch": "arch",
    "alpine": "alpine",
    "gentoo": "gentoo",
    "flatcar": "image",
    "coreos": "image",
    "nixos": "image",
    "buildroot": "image",
    "poky": "image",
}
"""By what os-release(5) has in ID or ID_LIKE; in family ``image`` a build makes the system as a whole."""


class Distribution(NamedTuple):
    """What the system calls itself."""

    id: str
    name: str
    version: str
    family: str
    """One of the values of `FAMILIES`, ``ostree``, or ``other``."""


def read_distribution(tree: Tree) -> Distribution:
    """Return what os-release(5) says."""
    text = tree.text("/etc/os-release") or tree.text("/usr/lib/os-release") or ""
    values = parse_assignments(text)
    name = values.get("PRETTY_NAME") or values.get("NAME") or "a system without os-release"
    words = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    family = next((FAMILIES[word] for word in words if word in FAMILIES), "other")
    if any(word.startswith("opensuse") for word in words):
        family = "suse"
    if tree.exists("/sysroot/ostree") or tree.exists("/run/ostree-booted"):
        family = "ostree"
    return Distribution(words[0], name, values.get("VERSION_ID", ""), family)


def parse_assignments(text: str) -> dict[str, str]:
    """Return the assignments of a file that a shell could read, as os-release(5) and /etc/default have them."""
    values = {}
    for line in text.splitlines():
        key, sign, value = line.strip().partition("=")
        if not sign or key.startswith("#") or not key.replace("_", "").isalnum():
            continue
        try:
            words = shlex.split(value, comments=True)
        except ValueError:
            words = [value.strip("\"'")]
        values[key] = words[0] if words else ""
    return values
