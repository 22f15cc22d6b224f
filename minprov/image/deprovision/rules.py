"""What a machine has of its own and must not leave in an image: files by path, each with the reason why it goes.

The order is that in which they go: docs/generalise.md says why. To add one, add an entry; what `check` finds as
leftovers and no rule covers, a test finds.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from minprov.definitions import Enum, NamedTuple

if TYPE_CHECKING:
    from minprov.machine.manifest import Effect


class Phase(IntEnum):
    """When something goes; what is cut off leaves a machine that works as before, or one that is provisioned anew."""

    TRACES = 0
    """What nothing needs: without it the machine works as before."""
    MARKERS = 1
    """From here on the next boot provisions this machine anew."""
    ACCESS = 2
    """What people log in with."""
    IDENTITY = 3
    DOCUMENTS = 4
    MANIFEST = 5
    """What says that all this is to go: it goes last, so that a second run finishes what a first one began."""


class Act(Enum):
    """What is done to a target."""

    DELETE = "delete"
    """A file, or a directory with all that is in it on the same file system."""
    EMPTY = "empty"
    """A file keeps its owner and mode."""
    REWRITE = "rewrite"
    LOCK = "lock"
    """A password becomes ``*``."""
    WITHDRAW = "withdraw"
    """An effect of minprov's manifest goes back to what was there before."""
    LEAVE_GROUPS = "leave groups"
    REMOVE_ACCOUNT = "remove account"
    COVER = "cover"
    """What is written to a directory from now on does not reach the disk."""
    STOP = "stop"
    """A service writes no more from now on."""


class Item(NamedTuple):
    """One thing that goes."""

    id: str
    phase: Phase
    act: Act
    target: str
    why: str
    contents: bytes | None = None
    effect: Effect | None = None


class Rule(NamedTuple):
    """What `--keep` names, and files that go.

    Of a pattern, ``*`` is part of one name, and ``**`` at the end is all files below.
    """

    id: str
    phase: Phase
    act: Act
    why: str
    patterns: tuple[str, ...]


COPIES = tuple(f"/etc/{name}-" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"))
"""Account tools make them of what they change, when they change it."""
ACCOUNT_COPIES = Rule(
    "account-copies",
    Phase.IDENTITY,
    Act.DELETE,
    "have the accounts and passwords of before",
    (*COPIES, *(f"/var/backups/{name}.bak" for name in ("passwd", "shadow", "group", "gshadow"))),
)

RULES = (
    Rule(
        "logs",
        Phase.TRACES,
        Act.DELETE,
        "tell of this machine and its people",
        (
            *("/var/log/journal/*", "/var/log/*.gz", "/var/log/*.xz", "/var/log/*.zst", "/var/log/*.[0-9]"),
            *("/var/log/*.old", "/var/log/*-20[0-9][0-9][0-9][0-9][0-9][0-9]", "/var/log/*/*.gz", "/var/log/*/*.[0-9]"),
            *("/var/log/waagent.log*", "/var/log/cloud-init*.log", "/var/log/azure", "/var/log/azure-proxy-agent"),
        ),
    ),
    Rule("logs", Phase.TRACES, Act.EMPTY, "tell of this machine and its people", ("/var/log/**",)),
    Rule(
        "memory-dumps",
        Phase.TRACES,
        Act.DELETE,
        "may have secrets of programs in them",
        ("/var/crash/*", "/var/lib/systemd/coredump/*", "/core"),
    ),
    Rule(
        "package-caches",
        Phase.TRACES,
        Act.DELETE,
        "are downloaded again where they are needed",
        (
            *(
                "/var/cache/apt/archives/*.deb",
                "/var/cache/dnf/*/packages/*.rpm",
                "/var/cache/yum/*/*/*/packages/*.rpm",
            ),
            *("/var/cache/zypp/packages/*/*/*.rpm", "/var/cache/pacman/pkg/*.pkg.tar*", "/var/cache/apk/*.apk"),
        ),
    ),
    Rule(
        "dhcp-leases",
        Phase.TRACES,
        Act.DELETE,
        "each VM would ask for the address of this one, by its name and client id",
        (
            *("/var/lib/dhclient/*", "/var/lib/dhcp/*", "/var/lib/dhcpcd/*", "/var/db/dhcpcd/*", "/etc/dhcpcd.duid"),
            *("/etc/dhcpcd.secret", "/var/lib/NetworkManager/*.lease", "/var/lib/NetworkManager/internal-*"),
            *("/var/lib/NetworkManager/timestamps", "/var/lib/NetworkManager/seen-bssids", "/var/lib/wicked/*"),
            *("/var/lib/systemd/network/*", "/run/systemd/netif/leases/*"),
        ),
    ),
    Rule(
        "random-seed",
        Phase.TRACES,
        Act.DELETE,
        "all VMs would begin with the same seed",
        (
            *("/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/var/lib/seedrng/seed.*"),
            "/var/lib/random-seed",
        ),
    ),
    Rule(
        "histories",
        Phase.TRACES,
        Act.DELETE,
        "commands may have secrets in them",
        ("/root/.*history", "/home/*/.*history", "/root/.viminfo", "/root/.lesshst", "/home/*/.viminfo"),
    ),
    Rule(
        "kvp-pool", Phase.TRACES, Act.EMPTY, "has what this VM reported to its host", ("/var/lib/hyperv/.kvp_pool_1",)
    ),
    Rule(
        "markers",
        Phase.MARKERS,
        Act.DELETE,
        "the next boot would find this VM provisioned",
        ("{state}/ready", "{state}/applied", "{state}/pool"),
    ),
    Rule(
        "waagent-state",
        Phase.ACCESS,
        Act.DELETE,
        "says that this VM is provisioned, and has its certificates and settings",
        ("/var/lib/waagent",),
    ),
    Rule(
        "cloud-init-state",
        Phase.ACCESS,
        Act.DELETE,
        "says that this VM is provisioned, and has its customData",
        (
            *("/var/lib/cloud/instance", "/var/lib/cloud/instances", "/var/lib/cloud/data", "/var/lib/cloud/sem"),
            "/var/lib/cloud/seed",
        ),
    ),
    Rule(
        "proxy-agent-keys",
        Phase.ACCESS,
        Act.DELETE,
        "are what this VM and its host know each other by",
        ("/var/lib/azure-proxy-agent",),
    ),
    Rule("certificates", Phase.ACCESS, Act.DELETE, "are this VM's, and so are their keys", ("{state}/certificates",)),
    Rule("host-keys", Phase.ACCESS, Act.DELETE, "all VMs would be one to their clients", ("/etc/ssh/ssh_host_*",)),
    Rule(
        "authorized-keys",
        Phase.ACCESS,
        Act.DELETE,
        "would open each VM of the image",
        ("/root/.ssh/authorized_keys", "/root/.ssh/authorized_keys2", "/home/*/.ssh/authorized_keys"),
    ),
    Rule(
        "network-secrets",
        Phase.IDENTITY,
        Act.DELETE,
        "stable addresses and client ids are made of it",
        ("/var/lib/NetworkManager/secret_key",),
    ),
    Rule(
        "credential-secret",
        Phase.IDENTITY,
        Act.DELETE,
        "VMs could read each other's encrypted credentials",
        ("/var/lib/systemd/credential.secret",),
    ),
    Rule(
        "nic-names",
        Phase.IDENTITY,
        Act.DELETE,
        "bind names to the NICs of this VM",
        ("/etc/udev/rules.d/70-persistent-net.rules", "/etc/udev/rules.d/85-persistent-net-cloud-init.rules"),
    ),
    Rule(
        "subscription",
        Phase.IDENTITY,
        Act.DELETE,
        "all VMs would be one machine to the distributor",
        (
            *("/etc/pki/consumer/*.pem", "/etc/zypp/credentials.d/SCCcredentials", "/etc/sysconfig/rhn/systemid"),
            "/var/lib/ubuntu-advantage/private/machine-token.json",
        ),
    ),
    ACCOUNT_COPIES,
    Rule("dbus-id", Phase.IDENTITY, Act.DELETE, "is a second machine id", ("/var/lib/dbus/machine-id",)),
    Rule(
        "machine-id",
        Phase.IDENTITY,
        Act.EMPTY,
        "each VM makes its own; the file stays, so that systemd applies no presets",
        ("/etc/machine-id",),
    ),
    Rule(
        "documents",
        Phase.DOCUMENTS,
        Act.DELETE,
        "belongs to this VM",
        (
            *("{state}/custom-data*", "{state}/user-data*", "{state}/ovf-env.xml", "{state}/report.json"),
            *("{state}/certificates.json", "{state}/follow-up.json", "{state}/hooks.json", "{state}/hooks-*.log"),
            *("{state}/resource-disk.json", "{state}/resource-disk.journal", "{state}/creating-*"),
        ),
    ),
    Rule(
        "manifest",
        Phase.MANIFEST,
        Act.DELETE,
        "belongs to this VM",
        ("{state}/journal", "{state}/manifest.json"),
    ),
)
"""`{state}` is minprov's state directory."""
