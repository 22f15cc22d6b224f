"""Checks of what a person needs to log in to a new VM and to become root: sshd and sudo."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.formats import sshd_config, sudoers
from minprov.formats.accounts import existing_groups
from minprov.formats.sshd_config import Connection
from minprov.image.findings import Check, Found, Severity, left_behind
from minprov.image.system_program import errors_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.subject import Subject
    from minprov.image.tree import Tree

DISABLE_PROVISIONING = "https://learn.microsoft.com/azure/virtual-machines/linux/disable-provisioning"
SERVERS = ("/usr/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd", "/usr/lib/ssh/sshd")
SMALL_SERVERS = ("/usr/sbin/dropbear", "/sbin/dropbear")
SERVICES = ("ssh", "sshd", "dropbear", "sshd-keygen@", "S50sshd")
REFUSED = re.compile(r"^(/.*?):? line ([0-9]{1,9}): (.*?)\.?\r?$", re.MULTILINE)
ACCEPTED = re.compile("no hostkeys available|privilege separation directory", re.IGNORECASE)
"""What sshd lacks in an image and has at a boot, and says once it has read its configuration."""
REFUSED_FIX = "Correct the line; `sshd -t` is to say nothing."
ADMINISTRATOR = Connection("azureuser", "203.0.113.9", "203.0.113.9", "10.0.0.4")
"""A login from outside: the name is one that no image can know."""
GROUPS = ("adm", "sudo", "wheel")
"""Those that minprov puts the administrator into, where they exist (setting user.groups)."""
ALIVE = 180
MAX_INCLUDED = 1000
SUDO = ("/usr/bin/sudo", "/usr/sbin/sudo", "/bin/sudo", "/usr/bin/doas")


def judge_host_keys(subject: Subject) -> Iterator[Found]:
    """Look for private host keys, which every VM of the image would share."""
    for path in subject.tree.glob("/etc/ssh/ssh_host_*_key", "/etc/dropbear/dropbear_*_host_key"):
        yield left_behind(subject, "a private host key is in the image", path)


def judge_server(subject: Subject) -> Iterator[Found]:
    """Look for a server that is installed and started, and have it say whether it would start, if it may be run."""
    tree = subject.tree
    installed = [path for path in (*SERVERS, *SMALL_SERVERS) if tree.is_file(path)]
    if not installed:
        yield Found(
            "no SSH server is installed", severity=Severity.RISK, fix=SERVER_FIX.get(subject.distribution.family)
        )
        return
    program = installed[0].rpartition("/")[2]
    if not subject.services.starts(*SERVICES) and not subject.services.runs_program(program):
        masked = [unit for unit in ("ssh.service", "sshd.service") if subject.services.is_masked(unit)]
        yield Found(
            f"{program} is installed, and {f'{masked[0]} is masked' if masked else 'nothing starts it'}", installed[0]
        )
    if installed[0] in SERVERS and subject.purpose.run_tools:
        yield from _refused(subject, installed[0])


def judge_settings(subject: Subject) -> Iterator[Found]:
    """Look for settings of sshd that keep the administrator of a new VM out."""
    lines = _sshd_lines(subject)
    groups = {*GROUPS, ADMINISTRATOR.user} & (
        existing_groups(subject.tree.text("/etc/group") or "") | {ADMINISTRATOR.user}
    )

    def line_of(keyword: str) -> sshd_config.Line | None:
        return sshd_config.find_line(lines, keyword, ADMINISTRATOR, groups)

    def found(line: sshd_config.Line, what: str, severity: Severity | None = None) -> Found:
        return Found(what, line.file, line.number, f"{line.keyword} {' '.join(line.arguments)}", severity)

    if (line := line_of("pubkeyauthentication")) and line.arguments[:1] == ("no",):
        yield found(line, "login by key is off")
    if (line := line_of("authenticationmethods")) and not _has_simple_method(line.arguments):
        yield found(line, "login needs more than a key or a password alone")
    if (line := line_of("allowgroups")) and not _lists_any(line.arguments, groups):
        yield found(line, "only groups that the administrator is not in may log in")
    if (line := line_of("allowusers")) and not _lists_any(line.arguments, {ADMINISTRATOR.user}):
        yield found(line, "only users that are named may log in: VMs must be created with one of them", Severity.RISK)
    if (line := line_of("authorizedkeysfile")) and line.arguments[:1] == ("none",):
        yield found(line, "sshd reads no authorized_keys")
    if (line := line_of("denygroups")) and _lists_any(line.arguments, groups):
        yield found(line, "the administrator's group may not log in")


def judge_alive(subject: Subject) -> Iterator[Found]:
    """Look for an interval that keeps connections alive through the load balancer."""
    if not any(subject.tree.is_file(path) for path in SERVERS):
        return
    line = sshd_config.find_line(_sshd_lines(subject), "clientaliveinterval", ADMINISTRATOR, ())
    value = _seconds(line.arguments) if line else 0
    if not 0 < value <= ALIVE:
        place = (line.file, line.number, f"ClientAliveInterval {value}") if line else (sshd_config.CONFIG, None, None)
        yield Found("an idle connection is not kept alive", *place)


def judge_sudo(subject: Subject) -> Iterator[Found]:
    """Look for rules that ask for a password that nobody has."""
    lines = _sudo_lines(subject)
    for setting in ("targetpw", "rootpw", "runaspw"):
        if line := sudoers.find_default(lines, setting):
            yield Found(f"sudo asks for another account's password ({setting})", line.file, line.number, line.text)


def judge_sudo_there(subject: Subject) -> Iterator[Found]:
    """Look for sudo, and for the directory that rules are added to."""
    if not any(subject.tree.is_file(path) for path in SUDO):
        yield Found("there is no sudo: the administrator cannot become root")
    elif (subject.tree.text(sudoers.SUDOERS)) is not None:
        text = subject.tree.text(sudoers.SUDOERS) or ""
        if not re.search(r"^[@#]includedir\s", text, re.MULTILINE):
            yield Found("sudoers includes no directory: minprov adds its rule to the file itself", sudoers.SUDOERS)


def _refused(subject: Subject, sshd: str) -> Iterator[Found]:
    """Yield the lines that a system's own sshd refuses; where it has not come to them, that is unknown."""
    words = errors_of(subject.tree, sshd, "-t")
    refused = list(REFUSED.finditer(words))
    for line in refused:
        yield Found(f"sshd refuses its configuration: {line[3]}", line[1], int(line[2]), fix=REFUSED_FIX)
    if words and not refused and not ACCEPTED.search(words):
        yield Found(f"not judged: {words.splitlines()[-1]}", sshd, severity=Severity.UNKNOWN, fix=REFUSED_FIX)


def _sshd_lines(subject: Subject) -> list[sshd_config.Line]:
    tree, read = subject.tree, _bounded(subject.tree)

    def files(pattern: str) -> list[tuple[str, str]]:
        return [(path, read(path) or "") for path in tree.glob(pattern) if tree.is_file(path)]

    return sshd_config.read_lines(files)


def _sudo_lines(subject: Subject) -> list[sudoers.Line]:
    return sudoers.read_lines(_bounded(subject.tree), subject.tree.names)


def _bounded(tree: Tree) -> Callable[[str], str | None]:
    """Return a function that reads files, up to a number: some that include others twice, and so on, never end."""
    left = MAX_INCLUDED

    def read(path: str) -> str | None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ProvisioningError(Reason.IMAGE_UNREADABLE, path=path, detail="files include each other without end")
        return tree.text(path)

    return read


def _has_simple_method(methods: Sequence[str]) -> bool:
    return any(method.partition(":")[0] in ("any", "publickey", "password") for method in methods)


def _lists_any(patterns: Sequence[str], names: set[str]) -> bool:
    return any(sshd_config.matches_list(name, pattern.partition("@")[0]) for pattern in patterns for name in names)


def _seconds(arguments: Sequence[str]) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhSMH]?)", arguments[0]) if arguments else None
    return int(found[1]) * {"m": 60, "h": 3600}.get(found[2].lower(), 1) if found else 0


SERVER_FIX = {
    "debian": "apt install openssh-server; systemctl enable ssh",
    "rhel": "dnf install openssh-server; systemctl enable sshd",
    "suse": "zypper install openssh; systemctl enable sshd",
    "arch": "pacman -S openssh; systemctl enable sshd",
    "alpine": "apk add openssh; rc-update add sshd default",
    "gentoo": "rc-update add sshd default",
    "other": "Install an SSH server and have it started.",
}

CHECKS = (
    Check(
        "host-keys",
        Severity.FAILS,
        "no SSH host keys",
        "All VMs of the image would have the same private keys: each can impersonate every other.",
        DISABLE_PROVISIONING,
        judge_host_keys,
        "rm /etc/ssh/ssh_host_*; minprov makes new ones in each VM.",
    ),
    Check(
        "sshd",
        Severity.FAILS,
        "an SSH server is installed and started",
        "It is how people log in to a VM on Azure.",
        DISABLE_PROVISIONING,
        judge_server,
        SERVER_FIX,
    ),
    Check(
        "sshd-login",
        Severity.FAILS,
        "sshd's settings let the administrator of a new VM log in",
        "minprov reports Ready only if sshd would let the administrator in: such a VM is reported as failed.",
        "sshd_config(5)",
        judge_settings,
        "Change the line; groups of the administrator are set by user.groups in minprov.toml.",
    ),
    Check(
        "sshd-alive",
        Severity.ADVICE,
        "ClientAliveInterval is at most 180 s",
        "Azure's load balancer forgets a connection that is idle for four minutes.",
        "https://learn.microsoft.com/azure/virtual-machines/linux/redhat-create-upload-vhd",
        judge_alive,
        "echo 'ClientAliveInterval 180' >/etc/ssh/sshd_config.d/40-alive.conf",
    ),
    Check(
        "sudo-password",
        Severity.RISK,
        "no targetpw, rootpw or runaspw in sudoers",
        "sudo would ask for a password of root, which has none in a VM.",
        "https://learn.microsoft.com/azure/virtual-machines/linux/suse-create-upload-vhd",
        judge_sudo,
        "Delete the line, and with targetpw the rule `ALL ALL=(ALL) ALL`, by visudo.",
    ),
    Check(
        "sudo",
        Severity.ADVICE,
        "sudo is installed and its sudoers includes a directory",
        "The administrator of a VM is expected to become root by sudo.",
        "sudoers(5)",
        judge_sudo_there,
        {
            "debian": "apt install sudo; echo '@includedir /etc/sudoers.d' >>/etc/sudoers",
            "rhel": "dnf install sudo; echo '#includedir /etc/sudoers.d' >>/etc/sudoers",
            "suse": "zypper install sudo; echo '@includedir /etc/sudoers.d' >>/etc/sudoers",
            "alpine": "apk add sudo; echo '@includedir /etc/sudoers.d' >>/etc/sudoers",
            "other": "Install sudo; echo '@includedir /etc/sudoers.d' >>/etc/sudoers",
        },
    ),
)
