"""Checks of who provisions the VM: one agent, complete, and what it needs in the image."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from minprov.config import CONFIG_FILE, Options
from minprov.errors import ProvisioningError
from minprov.image.family import parse_assignments
from minprov.image.findings import Check, Found, Severity
from minprov.image.subject import SITES
from minprov.machine.provisioners import enabled_provisioners
from minprov.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.subject import Subject

NO_AGENT = "https://learn.microsoft.com/azure/virtual-machines/linux/no-agent"
WAAGENT_CONF = "/etc/waagent.conf"
PACKAGES = ("aiohttp", "aiofiles", "defusedxml")
DEMANDS = ("Extensions.Enabled", "OS.EnableRDMA", "DetectScvmmEnv")
CLOCKS = ("chrony", "chronyd", "ntp", "ntpd", "ntpsec", "openntpd", "systemd-timesyncd")
CHRONY_CONF = ("/etc/chrony.conf", "/etc/chrony/chrony.conf", "/etc/chrony/conf.d/*.conf", "/etc/chrony.d/*.conf")
PTP = "/dev/ptp_hyperv"
REFCLOCK = f"refclock PHC {PTP} poll 3 dpoll -2 offset 0 stratum 2"
PTP_SOURCE = re.compile(r"refclock\s+PHC\s+(/dev/ptp[^\s:]*)", re.IGNORECASE)
KVP = ("hv-kvp-daemon", "hv_kvp_daemon", "hypervkvpd")
ACCOUNT_TOOLS = ("useradd", "adduser", "busybox")


def judge_agents(subject: Subject) -> Iterator[Found]:
    """Look for none, or more than one, that provisions."""
    others = enabled_provisioners(System(subject.tree.root))
    own = subject.starts_minprov
    if own is None and not others:
        yield Found("nothing in it provisions the VM: neither minprov nor another agent is started")
    elif own and others:
        options = subject.options
        policy = options.other_provisioners.value if isinstance(options, Options) else "refuse"
        if policy == "ignore" or (policy == "prepare" and others == ["waagent"]):
            return
        yield Found(f"minprov and {' and '.join(others)} both provision the VM", own)
    elif {"waagent", "cloud-init"} <= set(others):
        values = parse_assignments(_without_dots(subject.tree.text(WAAGENT_CONF) or ""))
        if values.get("Provisioning_Agent", "auto") not in ("auto", "cloud-init", "disabled"):
            yield Found("waagent and cloud-init both provision the VM", WAAGENT_CONF, severity=Severity.RISK)
    elif len(others) > 1:
        yield Found(f"{' and '.join(others)} all provision the VM")


def judge_minprov(subject: Subject) -> Iterator[Found]:
    """Look for the program that minprov's unit starts, and the modules that it imports."""
    own = subject.starts_minprov
    unit = subject.services.unit("minprov.service")
    if own is None or unit is None:
        return
    for number, line in subject.tree.lines(unit):
        if found := re.match(r"ExecStart=[-+!@:]*(\S+)", line):
            yield from _program(subject, found[1], unit, number)


def judge_configuration(subject: Subject) -> Iterator[Found]:
    """Look for mistakes in minprov.toml."""
    if isinstance(subject.options, ProvisioningError):
        data = dict(subject.options.data)
        file = str(data.pop("file", CONFIG_FILE)).removeprefix(subject.tree.root.rstrip("/"))
        words = ", ".join(f"{key} {value}" for key, value in data.items())
        yield Found(f"minprov refuses its configuration: {words}", file)


def judge_demands(subject: Subject) -> Iterator[Found]:
    """Look for what waagent alone does, where it is not started."""
    if subject.starts_minprov is None or subject.services.starts("walinuxagent", "waagent"):
        return
    for number, line in subject.tree.lines(WAAGENT_CONF):
        key, _, value = line.partition("=")
        if key in DEMANDS and value.strip().lower() in ("y", "yes", "true"):
            yield Found(f"{key} is on, and waagent is not started", WAAGENT_CONF, number, line)


def judge_accounts(subject: Subject) -> Iterator[Found]:
    """Look for what an account is made with, and where."""
    tree = subject.tree
    if not tree.is_file("/etc/passwd"):
        yield Found("there is no /etc/passwd: no account can be made", "/etc/passwd")
        return
    if not any(subject.has_tool(tool) for tool in ACCOUNT_TOOLS):
        yield Found("there is neither useradd nor busybox: no account can be made")
    if not tree.is_file("/etc/shadow"):
        yield Found("there is no /etc/shadow: everybody can read passwords", "/etc/shadow", severity=Severity.RISK)
    if tree.exists("/home") and not tree.is_directory("/home"):
        yield Found("/home is no directory", "/home")
    for mount in tree.lines("/etc/fstab"):
        words = mount[1].split()
        if len(words) > 3 and words[1] == "/home" and "ro" in words[3].split(","):
            yield Found("/home is mounted read-only", "/etc/fstab", mount[0], severity=Severity.FAILS)


def judge_clock(subject: Subject) -> Iterator[Found]:
    """Look for something that keeps the time."""
    if not subject.services.starts(*CLOCKS) and not subject.services.runs_program("ntpd"):
        yield Found("nothing keeps the clock: neither chrony nor another NTP client is started")
    if chrony := subject.services.starts("chrony", "chronyd"):
        paths = subject.tree.glob(*CHRONY_CONF)
        sources = [
            (path, number, source[1])
            for path in paths
            for number, line in subject.tree.lines(path)
            if (source := PTP_SOURCE.match(line))
        ]
        if not sources:
            yield Found("chrony does not use the host's clock, which needs no network", [*paths, chrony][0])
        for path, number, device in sources:
            if device != PTP:
                what = f"chrony uses {device}, which need not be the host's clock where a NIC has one, too"
                yield Found(what, path, number)


def judge_kvp(subject: Subject) -> Iterator[Found]:
    """Look for the daemon by which the host is told why provisioning failed."""
    if not subject.services.starts(*KVP):
        yield Found("no KVP daemon is started: the host cannot be told how provisioning went")


def _program(subject: Subject, program: str, unit: str, number: int) -> Iterator[Found]:
    tree = subject.tree
    if not tree.is_file(program):
        yield Found(f"minprov's unit starts {program}, which is not there", unit, number)
        return
    with tree.open(program) as file:
        first = file.readline(256).decode(errors="replace")
    if not first.startswith("#!") or "python" not in first:
        return  # a form of minprov that brings all of it
    interpreter = first[2:].split()[0]
    if not tree.is_file(interpreter):
        yield Found(f"{program} is run by {interpreter}, which is not there", program, 1)
    for package in PACKAGES:
        if not tree.glob(*(f"{site}/{package}" for site in SITES)):
            yield Found(f"minprov imports {package}, which is not installed", program)


def _without_dots(text: str) -> str:
    return re.sub(r"^(\w+)\.(\w+)=", r"\1_\2=", text, flags=re.MULTILINE)


CHECKS = (
    Check(
        "agents",
        Severity.FAILS,
        "exactly one agent provisions",
        "Without one a VM has no user and is never Ready; two race for the media, the account and the report.",
        NO_AGENT,
        judge_agents,
        {
            "debian": "apt install ./minprov.deb; apt purge cloud-init waagent, or systemctl disable one of them",
            "alpine": "rc-update add minprov default; rc-update del cloud-init",
            "other": "systemctl enable minprov; systemctl disable cloud-init walinuxagent waagent; docs/beside.md has "
            "how waagent stays for extensions.",
        },
    ),
    Check(
        "minprov",
        Severity.FAILS,
        "the program that minprov's unit starts is there, with Python and the modules that it imports",
        "The unit would fail at the first boot and nobody be told.",
        "docs/embedding.md",
        judge_minprov,
        {
            "debian": "apt install --reinstall ./minprov.deb",
            "other": "Install minprov with its dependencies, or use the standalone form; see docs/embedding.md.",
        },
    ),
    Check(
        "minprov-toml",
        Severity.FAILS,
        "minprov.toml is accepted",
        "minprov refuses to run with a configuration that it does not understand.",
        "docs/configuration.md",
        judge_configuration,
        "Correct the key; `minprov --dry-run` shows what is in force.",
    ),
    Check(
        "agent-needs",
        Severity.ADVICE,
        "waagent is there where extensions, RDMA or SCVMM are wanted",
        "minprov provisions and ends; these are done by an agent that stays.",
        "docs/beside.md",
        judge_demands,
        'Enable waagent beside minprov (other-provisioners = "prepare"), or remove waagent.conf.',
    ),
    Check(
        "accounts",
        Severity.FAILS,
        "there is an account database, a tool that adds to it, and a place for home directories",
        "The administrator's account is made by the system's own tool.",
        "docs/embedding.md",
        judge_accounts,
        {
            "debian": "apt install passwd",
            "rhel": "dnf install shadow-utils",
            "suse": "zypper install shadow",
            "arch": "pacman -S shadow",
            "other": "Install shadow-utils or busybox with adduser.",
        },
    ),
    Check(
        "clock",
        Severity.ADVICE,
        "chrony or another NTP client is started; chrony uses the host's clock, /dev/ptp_hyperv",
        "Tokens and certificates are refused by and to a VM whose clock is wrong.",
        "https://learn.microsoft.com/azure/virtual-machines/linux/time-sync",
        judge_clock,
        {
            "debian": f"apt install chrony; echo '{REFCLOCK}' >/etc/chrony/conf.d/hyperv.conf",
            "rhel": f"dnf install chrony; systemctl enable chronyd; echo '{REFCLOCK}' >>/etc/chrony.conf",
            "suse": f"zypper install chrony; systemctl enable chronyd; echo '{REFCLOCK}' >/etc/chrony.d/hyperv.conf",
            "arch": "systemctl enable systemd-timesyncd",
            "alpine": f"apk add chrony; rc-update add chronyd default; echo '{REFCLOCK}' >>/etc/chrony/chrony.conf",
            "other": f"Start chrony with `{REFCLOCK}`.",
        },
    ),
    Check(
        "kvp",
        Severity.ADVICE,
        "the Hyper-V KVP daemon is started",
        "It brings the reason of a failure to the host where no network does.",
        "https://learn.microsoft.com/azure/virtual-machines/linux/debian-create-upload-vhd",
        judge_kvp,
        {
            "debian": "apt install hyperv-daemons",
            "rhel": "dnf install hyperv-daemons; systemctl enable hypervkvpd",
            "suse": "zypper install hyper-v; systemctl enable hv_kvp_daemon",
            "arch": "pacman -S hyperv; systemctl enable hv_kvp_daemon",
            "alpine": "apk add hvtools; rc-update add hv_kvp_daemon default",
            "other": "Build tools/hv/hv_kvp_daemon of the kernel's sources and have it started.",
        },
    ),
)
