"""Decide what to change: every precedence rule between media, IMDS and configuration lives here.

Pure: what the sources delivered goes in, steps come out. No clock, no randomness, no system.
A complete ovf-env is authoritative; IMDS fills what it lacks and stands in for it where there is no media.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self, TypeVar

from minprov.actions import (
    Action,
    CheckProxyAgent,
    ConfigureSshd,
    EjectMedia,
    EnsureHostKeys,
    EnsureUser,
    ExecuteCustomData,
    GrantSudo,
    Phase,
    Policy,
    PrepareWaagent,
    PublishHostname,
    SetHostname,
    SetPassword,
    StoreFile,
    WriteAuthorizedKeys,
)
from minprov.config import AskPassword, OnMissing, OnOtherProvisioner, Options
from minprov.errors import ProvisioningError, Reason
from minprov.formats.ssh_keys import normalise_keys
from minprov.model import Chosen, Evidence, InstanceMetadata, OvfEnv, Properties, SshPublicKey

T = TypeVar("T")


class Step(NamedTuple):
    """An action with its name and target for people, carried out in its phase unless the policy is `Policy.OFF`."""

    name: str
    target: str
    policy: Policy
    action: Action
    phase: Phase = Phase.BEFORE_READY


class Plan(NamedTuple):
    """What a run will do, in the order in which it is told, and where its sources disagree."""

    properties: Properties
    steps: tuple[Step, ...]
    differences: tuple[str, ...] | None
    """Absent where only one of the sources has answered: nothing was compared."""

    def beyond(self, earlier: Self) -> tuple[Step, ...]:
        """Return the steps that an earlier plan, made from less evidence, does not have."""
        return tuple(step for step in self.steps if step not in earlier.steps)


def is_complete(ovf: OvfEnv, options: Options) -> bool:
    """Tell whether the media alone is enough, so that nothing has to wait for IMDS."""
    if not _needs_user(options):
        return True
    has_credentials = ovf.password is not None or bool(ovf.ssh_public_keys)
    every_key_has_a_value = all(key.value is not None for key in ovf.ssh_public_keys)
    return ovf.username is not None and has_credentials and every_key_has_a_value


def has_all(evidence: Evidence, options: Options) -> bool:
    """Tell whether IMDS has nothing to add to what the media says, so that at the end nothing waits for it."""
    ovf = evidence.ovf
    if ovf is None or not is_complete(ovf, options):
        return evidence.instance is not None
    login = options.sshd is Policy.OFF or ovf.disable_ssh_password_authentication is not None
    custom_data = ovf.custom_data if evidence.custom_data_bin is None else evidence.custom_data_bin
    return login and (options.custom_data is Policy.OFF or custom_data is not None)


def needs_source(options: Options) -> bool:
    """Tell whether anything is to be done that only a source can tell of; if not, Ready is all there is to report."""
    told = (options.hostname, options.user, options.password, options.ssh_keys, options.sudo, options.custom_data)
    return any(policy is not Policy.OFF for policy in told)


def plan_provisioning(evidence: Evidence, options: Options) -> Plan:
    """Return the plan for this evidence.

    Raises `ProvisioningError` when the VM must not be provisioned from this evidence, when no source has a required
    property, or when a value cannot be used.
    """
    _refuse_preprovisioned(evidence)
    properties = _choose_properties(evidence, options)
    _require_properties(properties, evidence, options)
    return Plan(
        properties=properties,
        steps=tuple(_plan_steps(properties, evidence, options)),
        differences=find_differences(evidence),
    )


def plan_ejection(device: str, options: Options) -> Step:
    """Return the step that gives the disc back, which is due once everything else is on record as applied."""
    return Step("eject-media", device, options.eject, EjectMedia(device=device), Phase.AFTER_READY)


def _refuse_preprovisioned(evidence: Evidence) -> None:
    # A pooled VM has the pool's identity now and gets its own later; see cloud-init's DataSourceAzure.py.
    ovf, instance = evidence.ovf, evidence.instance
    if ovf:
        kind = ovf.preprovisioned_vm_type or ("Running" if ovf.preprovisioned_vm else None)
    else:
        kind = instance.pps_type if instance else None
    if kind and kind.lower() != "none":
        raise ProvisioningError(Reason.UNSUPPORTED_PREPROVISIONING, type=kind)


def _choose_properties(evidence: Evidence, options: Options) -> Properties:
    ovf, instance = evidence.ovf, evidence.instance or InstanceMetadata()
    custom_data = _first((ovf.custom_data if ovf else None, "media"), (evidence.custom_data_bin, "media"))
    return Properties(
        hostname=_first((ovf.hostname if ovf else None, "media"), (instance.computer_name, "imds")),
        username=_first((ovf.username if ovf else None, "media"), (instance.admin_username, "imds")),
        password=_first((ovf.password if ovf else None, "media")),
        ssh_public_keys=_choose_keys(ovf, instance, options),
        disable_ssh_password_authentication=_first(
            (ovf.disable_ssh_password_authentication if ovf else None, "media"),
            (instance.disable_password_authentication, "imds"),
        ),
        custom_data=custom_data,
        user_data=None if custom_data else _first((instance.user_data, "imds")),
        shell=Chosen(options.shell, "config"),
        groups=Chosen(options.groups, "config"),
    )


def _first(*candidates: tuple[T | None, str]) -> Chosen[T] | None:
    for value, source in candidates:
        if value is not None:
            return Chosen(value, source)
    return None


def _choose_keys(ovf: OvfEnv | None, instance: InstanceMetadata, options: Options) -> Chosen[tuple[str, ...]] | None:
    if options.ssh_keys is Policy.OFF:
        return None
    from_media = ovf.ssh_public_keys if ovf else ()
    # The media may name keys by certificate fingerprint only; IMDS has the same list with the values.
    if from_media and all(key.value is not None for key in from_media):
        return Chosen(_normalise(from_media), "media")
    if instance.ssh_public_keys:
        return Chosen(_normalise((*instance.ssh_public_keys, *from_media)), "imds")
    usable = tuple(key for key in from_media if key.value is not None)
    return Chosen(_normalise(usable), "media") if usable else None


def _normalise(keys: tuple[SshPublicKey, ...]) -> tuple[str, ...]:
    normalised: dict[str, None] = {}
    for index, key in enumerate(keys):
        if key.value is not None:
            where = f"key {index} for {key.path}" if key.path else f"key {index}"
            normalised.update(dict.fromkeys(normalise_keys(key.value, where=where)))
    return tuple(normalised)


def _needs_user(options: Options) -> bool:
    return Policy.REQUIRED in (options.user, options.password, options.ssh_keys, options.sudo)


def _require_properties(properties: Properties, evidence: Evidence, options: Options) -> None:
    if properties.hostname is None and options.hostname is Policy.REQUIRED:
        raise ProvisioningError(Reason.MISSING_PROPERTY, property="hostname")
    if properties.username is None and _needs_user(options):
        raise ProvisioningError(Reason.MISSING_PROPERTY, property="username")
    wants_credentials = Policy.REQUIRED in (options.password, options.ssh_keys)
    if wants_credentials and properties.password is None and properties.ssh_public_keys is None:
        raise ProvisioningError(Reason.NO_CREDENTIALS, username=properties.username and properties.username.value)
    promised = evidence.instance is not None and evidence.instance.has_custom_data
    if promised and properties.custom_data is None and options.custom_data_missing is OnMissing.FAIL:
        raise ProvisioningError(Reason.MISSING_PROPERTY, property="customData")


def _plan_steps(properties: Properties, evidence: Evidence, options: Options) -> Iterator[Step]:
    if evidence.ovf and evidence.ovf.provision_guest_proxy_agent:
        yield Step("check-proxy-agent", "azure-proxy-agent", Policy.REQUIRED, CheckProxyAgent())
    if properties.hostname:
        hostname = properties.hostname.value
        yield Step("set-hostname", "/etc/hostname", options.hostname, SetHostname(hostname=hostname))
        publish = PublishHostname(hostname=hostname)
        yield Step("publish-hostname", "DHCP", options.hostname_publish, publish, Phase.AFTER_READY)
    if properties.username:
        yield from _plan_account(properties.username.value, properties, evidence, options)
    yield from _plan_documents(properties, evidence, options)
    if options.other_provisioners is OnOtherProvisioner.PREPARE:
        prepare = PrepareWaagent(
            hostname=properties.hostname and properties.hostname.value,
            ovf_env=evidence.redacted_ovf_env,
            disable_agent=evidence.ovf is not None and evidence.ovf.provision_guest_agent is False,
        )
        yield Step("prepare-waagent", "/var/lib/waagent", Policy.REQUIRED, prepare)
    if evidence.device:
        yield plan_ejection(evidence.device, options)


def _plan_account(username: str, properties: Properties, evidence: Evidence, options: Options) -> Iterator[Step]:
    password, keys = properties.password, properties.ssh_public_keys
    user = EnsureUser(
        username=username,
        shell=options.shell,
        groups=options.groups,
        allow_system_account=options.allow_system_account,
        journal=f"{options.state_dir}/creating-account",
    )
    yield Step("ensure-user", username, options.user, user)
    host_keys = EnsureHostKeys(journal=f"{options.state_dir}/creating-host-keys")
    yield Step("ensure-host-keys", "/etc/ssh", options.host_keys, host_keys)
    if password and evidence.password_hash:
        set_password = SetPassword(username, password=password.value, password_hash=evidence.password_hash)
        yield Step("set-password", username, options.password, set_password)
    if keys:
        write_keys = WriteAuthorizedKeys(
            username=username,
            keys=keys.value,
            groups=options.groups,
            with_password=password is not None and _allow_password_login(properties) is not False,
        )
        yield Step("write-authorized-keys", f"~{username}/.ssh/authorized_keys", options.ssh_keys, write_keys)
    allowed = _allow_password_login(properties)
    if allowed is not None:
        sshd = ConfigureSshd(
            username=username,
            password_authentication=allowed,
            drop_in=options.sshd_drop_in,
            groups=options.groups,
            with_keys=keys is not None,
        )
        yield Step("configure-sshd", sshd.drop_in, options.sshd, sshd)
    ask = options.sudo_ask_password
    ask_password = password is not None if ask is AskPassword.AUTO else ask is AskPassword.ALWAYS
    sudo = GrantSudo(username=username, ask_password=ask_password, path=options.sudo_file)
    yield Step("grant-sudo", sudo.path, options.sudo, sudo)


def _allow_password_login(properties: Properties) -> bool | None:
    # The control plane sends "false" when the user said nothing (WALinuxAgent#1334), so "false" alone is no wish to
    # open a hardened image: password login is turned on only for a password that is really there.
    disable = properties.disable_ssh_password_authentication
    if disable and disable.value:
        return False
    return True if properties.password else None


def _plan_documents(properties: Properties, evidence: Evidence, options: Options) -> Iterator[Step]:
    custom_data, user_data = properties.custom_data, properties.user_data
    # What a captured image brings along of its first VM's customData or userData is not this VM's.
    for name, found in (("custom-data", custom_data), ("user-data", user_data)):
        document = StoreFile(path=f"{options.state_dir}/{name}", contents=found.value if found else None)
        yield Step(f"write-{name}", document.path, options.custom_data, document)
    if evidence.redacted_ovf_env is not None:
        document = StoreFile(path=f"{options.state_dir}/ovf-env.xml", contents=evidence.redacted_ovf_env)
        yield Step("store-ovf-env", document.path, options.ovf_env, document)
    if options.custom_data_execute and custom_data and custom_data.value.startswith(b"#!"):
        program = ExecuteCustomData(path=f"{options.state_dir}/custom-data")
        yield Step("execute-custom-data", program.path, options.custom_data, program)


def find_differences(evidence: Evidence) -> tuple[str, ...] | None:
    """Return where media and IMDS differ, or None without one of them."""
    ovf, instance = evidence.ovf, evidence.instance
    if not ovf or not instance:
        return None
    pairs: tuple[tuple[str, object, object], ...] = (
        ("hostname", ovf.hostname, instance.computer_name),
        ("username", ovf.username, instance.admin_username),
        (
            "disable_ssh_password_authentication",
            ovf.disable_ssh_password_authentication,
            instance.disable_password_authentication,
        ),
    )
    return tuple(
        f"{name}: media has {media}, IMDS has {imds}"
        for name, media, imds in pairs
        if media is not None and imds is not None and media != imds
    )
