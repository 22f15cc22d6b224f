"""The check of what minprov.toml switches on: the units, programs and libraries that it needs in the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minprov.actions import Policy
from minprov.config import CONFIG_FILE, HOOKS_DUTY, POOL_DUTY, Duty, Execute, OnPool, Options, load_duty
from minprov.image.findings import Check, Found, Severity
from minprov.image.subject import SITES
from minprov.properties.pool import DROP_IN, DROP_INS, UNIT_DIRECTORIES, has_no_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.subject import Subject

LIBRARIES = ("/lib", "/usr/lib", "/usr/lib64", "/lib/*-linux-*", "/usr/lib/*-linux-*")
LIBCRYPTO = ("libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so.4")  # as in duties.certificates
ENTROPY_TOOLS = ("sh", "head", "tail")
CUSTOM_DATA = "minprov-custom-data.service"


def judge_duties(subject: Subject) -> Iterator[Found]:
    """Look for what each duty that is switched on needs."""
    options = subject.options
    if subject.starts_minprov is None or not isinstance(options, Options):
        return  # other checks say so
    for duty in options.duties:
        is_required = duty.policy is Policy.REQUIRED
        yield from _installed(subject, duty.program.replace("-", "_"))
        yield from _unit(subject, duty)
        for lacking in _lacking(subject, duty):
            severity = Severity.FAILS if is_required else None
            yield Found(f"{duty.table} needs {lacking}, which is not installed", CONFIG_FILE, severity=severity)
    yield from _custom_data(subject, options)
    if options.preprovisioning is OnPool.WAIT:
        yield from _pool(subject)
    if options.hooks:
        yield from _hooks(subject)
    if entropy := subject.services.starts("minprov-entropy"):
        for tool in ENTROPY_TOOLS:
            if not subject.has_tool(tool):
                yield Found(f"entropy needs {tool}, which is not installed", entropy)
    managers = {network.manager for network in subject.networks}
    if options.hostname_publish is not Policy.OFF and "NetworkManager" in managers and not subject.has_tool("nmcli"):
        what = "publishing the hostname needs nmcli, which is not installed: the platform's DNS may keep another name"
        yield Found(what, severity=Severity.ADVICE)


def _installed(subject: Subject, folder: str) -> Iterator[Found]:
    """Look for a duty's module beside the core's, where minprov is a package for Python."""
    packages = subject.tree.glob(*(f"{site}/minprov" for site in SITES))
    if packages and not any(subject.tree.is_directory(f"{package}/duties/{folder}") for package in packages):
        what = f"minprov refuses the configuration: duties/{folder} is not installed"
        yield Found(what, CONFIG_FILE, severity=Severity.FAILS, fix="Install minprov-duties, or remove the table.")


def _unit(subject: Subject, duty: Duty) -> Iterator[Found]:
    """Look for the unit by which a boot does a duty; other systems have scripts under any name."""
    unit = f"minprov-{duty.program}.service"
    if not subject.services.systemd or subject.services.starts(unit):
        return
    if subject.services.unit(unit) is None:
        # A run starts the unit of a required duty that has one, and does others itself.
        severity = Severity.FAILS if duty.policy is Policy.REQUIRED and duty.unit else None
        yield Found(f"{duty.table} is on, and {unit} is not there", CONFIG_FILE, severity=severity)
    else:
        what = f"{duty.table} is on, and {unit} is not enabled"
        yield Found(what, CONFIG_FILE, fix=f"systemctl enable {unit}")


def _lacking(subject: Subject, duty: Duty) -> Iterator[str]:
    """Yield the programs and libraries that a duty needs and that are not there."""
    if duty.program == "certificates":
        libraries = (f"{directory}/{name}" for directory in LIBRARIES for name in LIBCRYPTO)
        if not subject.tree.glob(*libraries) and not subject.has_tool("openssl"):
            yield "libcrypto or openssl"
    for tool in _tools(subject, duty):
        if not subject.has_tool(tool):
            yield tool


def _tools(subject: Subject, duty: Duty) -> Iterator[str]:
    settings = load_duty(duty.program.replace("-", "_"), subject.configuration)
    if duty.table == "resource-disk" and settings.format.value != "never":
        yield f"mkfs.{settings.file_system.value}"
    elif duty.table == "swap":
        yield from ("mkswap", "swapon")
    elif duty.table == "disk-timeouts":
        yield "udevadm"


def _custom_data(subject: Subject, options: Options) -> Iterator[Found]:
    if options.custom_data is Policy.OFF or options.custom_data_execute is Execute.NEVER:
        return
    if subject.services.systemd and subject.services.unit(CUSTOM_DATA) is None:
        severity = Severity.FAILS if options.custom_data is Policy.REQUIRED else None
        yield Found(f"custom-data.execute is on, and {CUSTOM_DATA} is not there", CONFIG_FILE, severity=severity)


def _pool(subject: Subject) -> Iterator[Found]:
    """Look for what a pooled VM needs to wait for its owner."""
    tree, services = subject.tree, subject.services
    yield from _installed(subject, POOL_DUTY)
    drop_ins = (name for directory in UNIT_DIRECTORIES for name in tree.glob(f"{directory}/{DROP_INS}/*.conf"))
    if services.unit("minprov.service") and not any(has_no_limit(tree.text(name) or "") for name in drop_ins):
        fix = f"Copy /usr/share/minprov/wait-in-pool.conf to {DROP_IN}."
        what = "systemd ends minprov.service, which is to wait in a pool"
        yield Found(what, CONFIG_FILE, severity=Severity.FAILS, fix=fix)
    if not services.starts("systemd-networkd", "NetworkManager"):
        what = "a pooled VM gets another network, and nothing asks for an address then"
        yield Found(what, CONFIG_FILE, fix="Enable systemd-networkd or NetworkManager.")


def _hooks(subject: Subject) -> Iterator[Found]:
    """Find hooks beside systemd, with which a run refuses the configuration."""
    yield from _installed(subject, HOOKS_DUTY)
    if subject.services.systemd:
        fix = "Order a unit after minprov-ready.target, or before minprov.service, and remove the table: docs/hooks.md."
        what = "hooks.directory is set, and with systemd there are no hooks: minprov refuses the configuration"
        yield Found(what, CONFIG_FILE, severity=Severity.FAILS, fix=fix)


CHECKS = (
    Check(
        "duties",
        Severity.RISK,
        "what minprov.toml switches on finds its units, programs and libraries",
        "A duty that lacks them does nothing at any boot; one that is required fails each VM.",
        "docs/configuration.md",
        judge_duties,
        "Install what is named, or set the policy to off.",
    ),
)
