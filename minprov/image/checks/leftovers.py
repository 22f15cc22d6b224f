"""Checks of what a machine leaves behind in an image of it: identities, secrets, traces of its builder.

On the running machine they are told and no more: it has a right to its identity until it is made an image of.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from minprov.formats.accounts import uid_max, uid_min
from minprov.image.findings import Check, Found, Severity, left_behind, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.subject import Subject

DISABLE_PROVISIONING = "https://learn.microsoft.com/azure/virtual-machines/linux/disable-provisioning"
WAAGENT = "WALinuxAgent: azurelinuxagent/pa/deprovision/default.py"
AZURE_DOMAIN = "internal.cloudapp.net"  # each virtual network has its own below this one
SHADOW_COPY = "/etc/shadow-"
LARGE_LOG = 64 << 10
_KEY_LINE = re.compile(r"(ssh-|ecdsa-|sk-)\S+ \S+")
_LOCAL_NAMES = (
    "localhost",
    "localhost.localdomain",
    "debian",
    "ubuntu",
    "alpine",
    "archlinux",
    "gentoo",
    "fedora",
    "host",
)


def judge_passwords(subject: Subject) -> Iterator[Found]:
    """Look for accounts that anybody can enter, and for a password that all VMs would share."""
    passwd, shadow = subject.tree.text("/etc/passwd") or "", (subject.tree.text("/etc/shadow") or "").splitlines()
    fields: dict[str, str] = {}
    for number, line in enumerate(shadow, 1):
        name, sign, rest = line.partition(":")
        if sign:
            fields.setdefault(name, rest.partition(":")[0])
        if _has_password(line):
            yield left_behind(subject, f"{name} has a password, the same in each VM", "/etc/shadow", number)
    for number, line in enumerate(passwd.splitlines(), 1):
        name, sign, rest = line.partition(":")
        field = rest.partition(":")[0]
        if name and sign and (fields.get(name) if field == "x" else field) == "":
            yield Found(f"{name} has an empty password", "/etc/passwd", number)
    known = set(shadow)
    for number, line in subject.tree.lines(SHADOW_COPY):
        if _has_password(line) and line not in known:
            name = line.partition(":")[0]
            yield left_behind(
                subject, f"the copy of /etc/shadow has an earlier password of {name}", SHADOW_COPY, number
            )


def _has_password(line: str) -> bool:
    fields = line.split(":")
    return len(fields) > 1 and fields[1][:1] in ("$", "_")


def judge_users(subject: Subject) -> Iterator[Found]:
    """Look for people's accounts, of whoever built the image."""
    definitions = subject.tree.text("/etc/login.defs") or ""
    low, high = uid_min(definitions), uid_max(definitions)
    for number, line in enumerate((subject.tree.text("/etc/passwd") or "").splitlines(), 1):
        fields = line.split(":")
        uid = number_of(fields[2]) if len(fields) > 3 else None
        if uid is not None and low <= uid <= high:
            yield left_behind(
                subject, f"{fields[0]} is the account of a person (uid {fields[2]})", "/etc/passwd", number
            )


def judge_keys(subject: Subject) -> Iterator[Found]:
    """Look for keys that open every VM of the image."""
    for path in subject.tree.glob(
        "/root/.ssh/authorized_keys", "/root/.ssh/authorized_keys2", "/home/*/.ssh/authorized_keys"
    ):
        for number, line in subject.tree.lines(path):
            if _KEY_LINE.search(line):
                yield left_behind(subject, "a key opens each VM of the image", path, number)


def judge_hostname(subject: Subject) -> Iterator[Found]:
    """Look for the name of the machine that built the image, and what was resolved by it."""
    name = (subject.tree.text("/etc/hostname") or "").strip()
    if name and name.partition(".")[0] not in _LOCAL_NAMES:
        for number, line in subject.tree.lines("/etc/hosts"):
            if name in line.split()[1:] and not line.startswith(("127.", "::1")):
                yield left_behind(
                    subject, f"{name} stands for an address of the machine that built the image", "/etc/hosts", number
                )


def judge_resolver(subject: Subject) -> Iterator[Found]:
    """Look for name servers and search domains of the network in which the image was built."""
    path = "/etc/resolv.conf"
    if subject.tree.link(path) is not None:
        return
    for number, line in subject.tree.lines(path):
        word, *values = line.split()
        if word == "nameserver" and values and not values[0].startswith(("127.", "168.63.129.16", "::1")):
            what = f"the name server is {values[0]}, of the network where the image was built"
            yield left_behind(subject, what, path, number)
        if word in ("search", "domain") and any(value.endswith(AZURE_DOMAIN) for value in values):
            yield left_behind(
                subject, f"{values[0]} is the domain of the network where the image was built", path, number
            )


def judge_logs(subject: Subject) -> Iterator[Found]:
    """Look for logs and dumps of the machine that built the image."""
    for path in subject.tree.walk("/var/log"):
        found = subject.tree.stat(path)
        if found and found.st_size > LARGE_LOG:
            yield left_behind(subject, "a log of the machine that built the image", path)
    for path in subject.tree.glob("/var/crash/*", "/var/lib/systemd/coredump/*", "/core"):
        yield left_behind(subject, "a dump of a program's memory", path)


def _files(what: str, *patterns: str, but: str = "") -> Callable[[Subject], Iterator[Found]]:
    """Return a function that yields each regular file that is not empty."""

    def judge(subject: Subject) -> Iterator[Found]:
        for path in subject.tree.glob(*patterns):
            found = subject.tree.stat(path)
            if found and found.st_size and subject.tree.is_file(path) and not (but and fnmatch.fnmatch(path, but)):
                yield left_behind(subject, what, path)

    return judge


CHECKS = (
    Check(
        "random-seed",
        Severity.RISK,
        "no random seed and no credential secret",
        "All VMs of the image would begin with the same seed, and could read each other's encrypted credentials.",
        "systemd-random-seed.service(8), systemd-creds(1)",
        _files(
            "a secret that is to be each machine's own",
            *("/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret", "/var/lib/urandom/random-seed"),
            *("/var/lib/seedrng/seed.*", "/var/lib/random-seed"),
        ),
        "Delete the file.",
    ),
    Check(
        "dhcp-leases",
        Severity.RISK,
        "no DHCP leases and client ids",
        "A VM would ask for the address of the machine that built the image, under that one's name.",
        WAAGENT,
        _files(
            "a DHCP lease or client id",
            *("/var/lib/dhclient/*", "/var/lib/dhcp/*", "/var/lib/dhcpcd/*", "/var/lib/NetworkManager/*.lease"),
            *("/var/lib/NetworkManager/internal-*", "/var/lib/wicked/*", "/var/lib/systemd/network/*"),
            "/etc/dhcpcd.duid",
        ),
        "Delete the files.",
    ),
    Check(
        "agent-state",
        Severity.RISK,
        "no state of an agent that has provisioned the machine",
        "An agent that believes that it has provisioned does nothing, or half of it.",
        WAAGENT,
        _files(
            "state of an agent that has run here",
            *("/var/lib/minprov/report.json", "/var/lib/minprov/ready/*", "/var/lib/minprov/applied/*"),
            "/var/lib/minprov/pool/*",
            *("/var/lib/waagent/provisioned", "/var/lib/waagent/*.xml", "/var/lib/waagent/*.prv"),
            *("/var/lib/cloud/instance/boot-finished", "/var/lib/cloud/data/*", "/var/lib/cloud/instances/*/*"),
        ),
        "rm -rf /var/lib/minprov /var/lib/waagent; cloud-init clean --logs --seed",
    ),
    Check(
        "network-secrets",
        Severity.RISK,
        "no secret key of NetworkManager",
        "It is to be each machine's own: stable addresses and client ids are made of it.",
        "NetworkManager.conf(5)",
        _files("NetworkManager's secret key", "/var/lib/NetworkManager/secret_key"),
        "rm /var/lib/NetworkManager/secret_key",
    ),
    Check(
        "histories",
        Severity.RISK,
        "no history of commands",
        "Commands that built the image may have had secrets, and every user of a VM can become root.",
        WAAGENT,
        _files("a history of commands", "/root/.*history", "/home/*/.*history", "/root/.viminfo", "/root/.lesshst"),
        "rm -f /root/.*history /home/*/.*history",
    ),
    Check(
        "authorized-keys",
        Severity.RISK,
        "no authorized_keys",
        "Whoever has the private key can enter every VM of the image.",
        DISABLE_PROVISIONING,
        judge_keys,
        "Delete the file; a VM's keys come from its creation.",
    ),
    Check(
        "passwords",
        Severity.RISK,
        "no account has a password, or an empty one",
        "A password in an image is known to all who have the image. `passwd -d` makes it empty and does not lock it.",
        DISABLE_PROVISIONING,
        judge_passwords,
        "usermod -p '*' NAME; rm -f /etc/shadow-",
    ),
    Check(
        "build-users",
        Severity.RISK,
        "no accounts of people",
        "They would be in every VM; an administrator of the same name would get the account's files and rights.",
        DISABLE_PROVISIONING,
        judge_users,
        "userdel -r NAME",
    ),
    Check(
        "builder-name",
        Severity.RISK,
        "/etc/hosts has no address of the machine that built the image",
        "The name of the VM would lead to a foreign address.",
        WAAGENT,
        judge_hostname,
        "Delete the line from /etc/hosts.",
    ),
    Check(
        "resolver",
        Severity.RISK,
        "/etc/resolv.conf has no name server and no domain of the builder's network",
        "Until DHCP replaces it, if it does, names are asked of an address that does not answer: logins and sudo wait.",
        WAAGENT,
        judge_resolver,
        "truncate -s 0 /etc/resolv.conf, or make it a link to the resolver's file",
    ),
    Check(
        "logs",
        Severity.RISK,
        "no logs and memory dumps of the builder",
        "They tell of the builder's machine and people, and are copied into every VM.",
        WAAGENT,
        judge_logs,
        "find /var/log -type f -delete; rm -rf /var/crash/* /var/lib/systemd/coredump/*",
    ),
    Check(
        "package-caches",
        Severity.ADVICE,
        "no downloaded packages",
        "They take space in the image and in every VM.",
        "apt-get(8), dnf(8), pacman(8)",
        _files(
            "a downloaded package",
            *(
                "/var/cache/apt/archives/*.deb",
                "/var/cache/dnf/*/packages/*.rpm",
                "/var/cache/yum/*/*/*/packages/*.rpm",
            ),
            *("/var/cache/zypp/packages/*/*/*.rpm", "/var/cache/pacman/pkg/*.pkg.tar*", "/var/cache/apk/*.apk"),
        ),
        {
            "debian": "apt-get clean",
            "rhel": "dnf clean all",
            "suse": "zypper clean --all",
            "arch": "pacman -Scc --noconfirm",
            "alpine": "rm -f /var/cache/apk/*",
            "other": "Delete the files.",
        },
    ),
    Check(
        "subscription",
        Severity.RISK,
        "no registration with the distributor",
        "All VMs would be one machine to the distributor, which may lock it out.",
        "subscription-manager(8), SUSEConnect(8), pro(1)",
        _files(
            "the identity of a registered machine",
            *("/etc/pki/consumer/*.pem", "/etc/zypp/credentials.d/SCCcredentials", "/etc/sysconfig/rhn/systemid"),
            "/var/lib/ubuntu-advantage/private/machine-token.json",
        ),
        {
            "debian": "pro detach",
            "rhel": "subscription-manager unregister; subscription-manager clean",
            "suse": "SUSEConnect --cleanup",
            "other": "Delete the file.",
        },
    ),
)
