"""Decide what to change. Which source's values count is decided by `choice`.

Pure: what the sources delivered goes in, steps come out. No clock, no randomness, no system. Where a value cannot be
used there is a step that fails, under the policy of its property, before anything is changed.
"""

from collections.abc import Iterator
from typing import Self

from minprov.actions import (
    Action,
    CheckProxyAgent,
    ConfigureSshd,
    EjectMedia,
    EnsureHostKeys,
    EnsureUser,
    ExecuteCustomData,
    GrantSudo,
    KeepAccount,
    LockRootPassword,
    Phase,
    Policy,
    PrepareWaagent,
    PublishHostname,
    RunDuty,
    RunHooks,
    SetHostname,
    SetPassword,
    StoreFile,
    UnusableValue,
    WaitInPool,
    WriteAuthorizedKeys,
)
from minprov.choice import Choice, asks_nothing, choose, find_differences, names_values, needs_user, wants_certificates
from minprov.config import (
    AskPassword,
    Execute,
    HostKeys,
    HostsFile,
    OnFailure,
    OnMissing,
    OnOtherProvisioner,
    OnPool,
    Options,
)
from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.formats.custom_data import GZIP, SCRIPT, decode, find_format
from minprov.model import Chosen, Evidence, Properties

POOL_TYPES = frozenset({"Running", "Savable", "PreprovisionedOSDisk"})


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
    notes: tuple[str, ...]
    """What was passed over, one sentence each."""
    pool_type: str | None = None
    """Which pool the VM is to wait in; there is nothing else in the plan then."""

    def beyond(self, earlier: Self) -> tuple[Step, ...]:
        """Return the steps that an earlier plan, made from less evidence, does not have."""
        return tuple(step for step in self.steps if step not in earlier.steps)


def needs_source(options: Options) -> bool:
    """Tell whether anything is to be done that only a source can tell of; if not, Ready is all there is to report."""
    told = (options.hostname, options.user, options.password, options.ssh_keys, options.sudo, options.custom_data)
    return any(policy is not Policy.OFF for policy in told)


def plan_provisioning(evidence: Evidence, options: Options) -> Plan:
    """Return the plan for this evidence.

    Raises `ProvisioningError` when the VM must not be provisioned from this evidence, or when no source has a required
    property.
    """
    if kind := _find_pool(evidence, options):
        # Nothing of the pool's identity is applied, nor shown.
        wait = Step("wait-in-pool", kind, Policy.REQUIRED, WaitInPool(kind))
        return Plan(choose(Evidence(), options).properties, (wait,), None, (), kind)
    choice = choose(evidence, options)
    if asks_nothing(evidence):
        note = "nothing was asked for: there is no disc, and IMDS has neither a host name, nor a user, nor keys"
        steps = (*_plan_user_data(choice, options), *plan_duties(options), *_plan_hooks(options))
        return Plan(choice.properties, steps, None, (note, *choice.notes))
    keeps_account = _keeps_account(choice, evidence, options)
    _require_properties(choice, evidence, options, keeps_account=keeps_account)
    return Plan(
        properties=choice.properties,
        steps=tuple(_plan_steps(choice, evidence, options, keeps_account=keeps_account)),
        differences=find_differences(evidence),
        notes=(*choice.notes, *_note_formats(choice, options)),
    )


def _note_formats(choice: Choice, options: Options) -> Iterator[str]:
    """Tell of data in a format that somebody will expect to be interpreted, as other agents do."""
    for name, found in _given_data(choice, options):
        data = found.value
        kind = f"gzip of {len(decoded)} bytes" if (decoded := decode(data)) is not None else None
        if kind is None and data.startswith(GZIP):
            yield f"{name} ({len(data)} bytes, gzip) is stored, not decoded: it is damaged or too large"
            continue
        known = find_format(data if decoded is None else decoded)
        if known == SCRIPT and name == "customData" and options.custom_data_execute is not Execute.NEVER:
            continue
        if shown := ", ".join(filter(None, (kind, known))):
            hint = "; custom-data.execute would run it" if known == SCRIPT and name == "customData" else ""
            yield f"{name} ({len(data)} bytes, {shown}) is stored, not interpreted{hint}"


def _given_data(choice: Choice, options: Options) -> Iterator[tuple[str, Chosen[bytes]]]:
    if options.custom_data is not Policy.OFF:
        for name, found in (("customData", choice.properties.custom_data), ("userData", choice.properties.user_data)):
            if found:
                yield name, found


def plan_ejection(device: str, options: Options) -> Step:
    """Return the step that gives the disc back, which is due once everything else is on record as applied."""
    return Step("eject-media", device, options.eject, EjectMedia(device=device), Phase.AFTER_READY)


def plan_duties(options: Options) -> Iterator[Step]:
    """Yield a step for the program of each duty that is required; what is best-effort comes after Ready."""
    required = [duty for duty in options.duties if duty.policy is Policy.REQUIRED]
    for program in dict.fromkeys(duty.program for duty in required):
        tables = [duty for duty in required if duty.program == program]
        run = RunDuty(program=program, unit=tables[0].unit, state_dir=options.state_dir)
        yield Step(f"run-{program}", ", ".join(duty.table for duty in tables), Policy.REQUIRED, run)


def _plan_hooks(options: Options) -> Iterator[Step]:
    if options.hooks:
        run = RunHooks(options.state_dir, options.hooks_flags)
        yield Step("run-hooks", f"{options.hooks}/before-ready.d", Policy.REQUIRED, run, Phase.JUST_BEFORE_READY)


def _find_pool(evidence: Evidence, options: Options) -> str | None:
    """Return the type of the pool that the VM is to wait in.

    A pooled VM has the pool's identity now and gets its own later; see cloud-init's DataSourceAzure.py, which does not
    ask what the later ovf-env says of a pool, but what IMDS does.

    Raises:
        ProvisioningError: UNSUPPORTED_PREPROVISIONING; IMDS_INVALID, where IMDS does not know that it has left one.

    """
    ovf, instance = evidence.ovf, evidence.instance
    if options.left_pool:
        if instance and instance.pps_type:
            key, detail = "extended.compute.ppsType", "the VM has got its owner"
            raise ProvisioningError(Reason.IMDS_INVALID, key=key, value=instance.pps_type, detail=detail)
        return None
    if ovf:
        kind = ovf.preprovisioned_vm_type or ("Running" if ovf.preprovisioned_vm else None)
    else:
        kind = instance.pps_type if instance else None
    if kind is None or kind.lower() == "none":
        return None
    if options.preprovisioning is OnPool.REFUSE or kind not in POOL_TYPES:
        raise ProvisioningError(Reason.UNSUPPORTED_PREPROVISIONING, type=kind)
    return kind


def _has_no_credentials(choice: Choice, options: Options) -> bool:
    wanted = Policy.REQUIRED in (options.password, options.ssh_keys)
    found = choice.properties.password or choice.properties.ssh_public_keys
    # Where that is for want of a usable one, its own step says so.
    refused = any(
        name in choice.faults and policy is Policy.REQUIRED
        for name, policy in (("password", options.password), ("ssh_public_keys", options.ssh_keys))
    )
    return wanted and not found and not refused


def _keeps_account(choice: Choice, evidence: Evidence, options: Options) -> bool:
    """Tell whether this may be a later boot that has lost its state: the disc is gone, and only it had the password."""
    return evidence.no_disc and choice.properties.username is not None and _has_no_credentials(choice, options)


def _require_properties(choice: Choice, evidence: Evidence, options: Options, *, keeps_account: bool) -> None:
    properties, faults = choice.properties, choice.faults
    if properties.hostname is None and "hostname" not in faults and options.hostname is Policy.REQUIRED:
        raise ProvisioningError(Reason.MISSING_PROPERTY, property="hostname")
    if "username" not in faults and needs_user(options):
        if properties.username is None:
            raise ProvisioningError(Reason.MISSING_PROPERTY, property="username")
        if _has_no_credentials(choice, options) and not keeps_account:
            ovf, detail = evidence.ovf, None
            if ovf and not names_values(ovf) and not wants_certificates(ovf, options):
                detail = "the media names keys by their certificates alone, and certificates.policy is off"
            raise ProvisioningError(Reason.NO_CREDENTIALS, username=properties.username.value, detail=detail)
    promised = evidence.instance is not None and evidence.instance.has_custom_data
    missing = promised and properties.custom_data is None and "custom_data" not in faults
    if missing and options.custom_data_missing is OnMissing.FAIL:
        raise ProvisioningError(Reason.MISSING_PROPERTY, property="customData")


def _plan_steps(choice: Choice, evidence: Evidence, options: Options, *, keeps_account: bool) -> Iterator[Step]:
    properties = choice.properties
    if evidence.ovf and evidence.ovf.provision_guest_proxy_agent:
        yield Step("check-proxy-agent", "azure-proxy-agent", Policy.REQUIRED, CheckProxyAgent())
    if properties.hostname:
        hostname = properties.hostname.value
        hosts_file = options.hosts_file is HostsFile.AUTO
        yield Step("set-hostname", "/etc/hostname", options.hostname, SetHostname(hostname, hosts_file=hosts_file))
        publish = PublishHostname(hostname=hostname)
        yield Step("publish-hostname", "DHCP", options.hostname_publish, publish, Phase.AFTER_READY)
    else:
        yield from _refuse(choice, "hostname", "set-hostname", "/etc/hostname", options.hostname)
    if properties.username and keeps_account:
        keep = KeepAccount(properties.username.value)
        yield Step("keep-account", keep.username, Policy.REQUIRED, keep, Phase.BEFORE_CHANGES)
    elif properties.username:
        yield from _plan_account(properties.username.value, choice, evidence, options)
    else:
        yield from _refuse(choice, "username", "ensure-user", "", _strictest(options))
    yield from _plan_documents(choice, evidence, options)
    yield from plan_duties(options)
    yield from _plan_program(choice, options)
    if options.other_provisioners is OnOtherProvisioner.PREPARE:
        prepare = PrepareWaagent(
            hostname=properties.hostname and properties.hostname.value,
            ovf_env=evidence.redacted_ovf_env,
            disable_agent=evidence.ovf is not None and evidence.ovf.provision_guest_agent is False,
        )
        yield Step("prepare-waagent", "/var/lib/waagent", Policy.REQUIRED, prepare)
    yield from _plan_hooks(options)
    if evidence.device:
        yield plan_ejection(evidence.device, options)


def _refuse(choice: Choice, name: str, step: str, target: str, policy: Policy) -> Iterator[Step]:
    """Yield the step that fails in the place of the named one, where there is a value that cannot be used."""
    if fault := choice.faults.get(name):
        action = UnusableValue(fault.reason, tuple(fault.data.items()))
        yield Step(step, target, policy, action, Phase.BEFORE_CHANGES)


def _strictest(options: Options) -> Policy:
    """Return the policy for what the account and all that is given to it depend on."""
    given = (options.user, options.password, options.ssh_keys, options.sudo)
    return next((policy for policy in (Policy.REQUIRED, Policy.BEST_EFFORT) if policy in given), Policy.OFF)


def _plan_account(username: str, choice: Choice, evidence: Evidence, options: Options) -> Iterator[Step]:
    password, keys = choice.properties.password, choice.properties.ssh_public_keys
    user = EnsureUser(
        username=username,
        shell=options.shell,
        groups=options.groups,
        allow_system_account=options.allow_system_account,
        allow_directory_account=options.allow_directory_account,
    )
    yield Step("ensure-user", username, options.user, user)
    anew = options.host_keys is HostKeys.ANEW
    policy = Policy.REQUIRED if anew else Policy(options.host_keys.value)
    yield Step("ensure-host-keys", "/etc/ssh", policy, EnsureHostKeys(anew=anew))
    if password and evidence.password_hash:
        set_password = SetPassword(username, password=password.value, password_hash=evidence.password_hash)
        yield Step("set-password", username, options.password, set_password)
    yield from _refuse(choice, "password", "set-password", username, options.password)
    keys_file = f"~{username}/.ssh/authorized_keys"
    if keys:
        write_keys = WriteAuthorizedKeys(
            username=username,
            keys=keys.value,
            groups=options.groups,
            with_password=password is not None and _allow_password_login(choice) is not False,
        )
        yield Step("write-authorized-keys", keys_file, options.ssh_keys, write_keys)
    else:
        # Who has a password can log in, and mend the keys.
        policy = Policy.BEST_EFFORT if password and options.ssh_keys is Policy.REQUIRED else options.ssh_keys
        yield from _refuse(choice, "ssh_public_keys", "write-authorized-keys", keys_file, policy)
    disable = "disable_ssh_password_authentication"
    yield from _refuse(choice, disable, "configure-sshd", options.sshd_drop_in, options.sshd)
    allowed = _allow_password_login(choice)
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
    # A later boot that has lost its state does not come here; the first has locked it.
    if options.root_password is not Policy.OFF:
        given = (password and options.password is not Policy.OFF) or (keys and options.ssh_keys is not Policy.OFF)
        lock: Action = LockRootPassword(administrator=username)
        if not given:
            lock = UnusableValue(Reason.NO_CREDENTIALS, (("username", username),))
        yield Step("lock-root-password", "root", options.root_password, lock)


def _allow_password_login(choice: Choice) -> bool | None:
    # The control plane sends "false" when the user said nothing (WALinuxAgent#1334), so "false" alone is no wish to
    # open a hardened image: password login is turned on only for a password that is really there.
    if "disable_ssh_password_authentication" in choice.faults:
        return None
    disable = choice.properties.disable_ssh_password_authentication
    if disable and disable.value:
        return False
    return True if choice.properties.password else None


def _plan_documents(choice: Choice, evidence: Evidence, options: Options) -> Iterator[Step]:
    custom_data, user_data = choice.properties.custom_data, choice.properties.user_data
    # What a captured image brings along of its first VM's customData or userData is not this VM's.
    for name, found in (("custom-data", custom_data), ("user-data", user_data)):
        path = f"{options.state_dir}/{name}"
        if (property_name := name.replace("-", "_")) in choice.faults:
            yield from _refuse(choice, property_name, f"write-{name}", path, options.custom_data)
            continue
        document = _stored_data(path, found)
        yield Step(f"write-{name}", document.path, options.custom_data, document)
    if evidence.redacted_ovf_env is not None:
        document = StoreFile(path=f"{options.state_dir}/ovf-env.xml", contents=evidence.redacted_ovf_env)
        yield Step("store-ovf-env", document.path, options.ovf_env, document)


def _plan_program(choice: Choice, options: Options) -> Iterator[Step]:
    custom_data = choice.properties.custom_data
    if options.custom_data_execute is Execute.NEVER or custom_data is None:
        return
    path, program = f"{options.state_dir}/custom-data", custom_data.value
    if (decoded := decode(program)) is not None:
        path, program = f"{path}.decoded", decoded
    if find_format(program) != SCRIPT:
        return
    wait = options.custom_data_execute is Execute.BEFORE_READY
    execute = ExecuteCustomData(
        path=path,
        state_dir=options.state_dir,
        time_limit=options.custom_data_time_limit,
        wait=wait,
        hostname=choice.properties.hostname and choice.properties.hostname.value,
        username=choice.properties.username and choice.properties.username.value,
    )
    policy, phase = options.custom_data, Phase.BEFORE_READY
    if not wait:
        phase = Phase.AFTER_READY
    if policy is Policy.REQUIRED and (not wait or options.custom_data_failure is OnFailure.WARN):
        policy = Policy.BEST_EFFORT
    yield Step("execute-custom-data", path, policy, execute, phase)


def _stored_data(path: str, found: Chosen[bytes] | None) -> StoreFile:
    return StoreFile(path, found.value, decode(found.value)) if found else StoreFile(path, None)


def _plan_user_data(choice: Choice, options: Options) -> Iterator[Step]:
    if user_data := choice.properties.user_data:
        document = _stored_data(f"{options.state_dir}/user-data", user_data)
        yield Step("write-user-data", document.path, options.custom_data, document)
