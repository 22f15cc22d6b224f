"""Precedence between media, IMDS and configuration, and what is made of it."""

from __future__ import annotations

import gzip

import pytest

from minprov.actions import (
    CheckProxyAgent,
    ConfigureSshd,
    EjectMedia,
    EnsureUser,
    ExecuteCustomData,
    GrantSudo,
    KeepAccount,
    Phase,
    Policy,
    SetHostname,
    SetPassword,
    StoreFile,
    UnusableValue,
    WriteAuthorizedKeys,
)
from minprov.choice import has_all, is_complete
from minprov.config import AskPassword, Execute, OnFailure, OnMissing, OnPool, Options
from minprov.errors import ProvisioningError, Reason
from minprov.model import Evidence, Faults, InstanceMetadata, OvfEnv, Properties, Secret, SshPublicKey
from minprov.plan import Plan, Step, plan_provisioning

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBMcHWTvNl7ozF7F7qgeoSmDgBZ3zhZGPZBPfwgw4GRz"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGcz6Xfi1Tvcs3uOx5Cj8fEGv5nLxb2lqCBKxkLWm1Zp"
PASSWORD = Secret("correct horse")
OVF = OvfEnv(hostname="media-host", username="media-user", password=PASSWORD)
FULL = OVF._replace(disable_ssh_password_authentication=False, custom_data=b"c")
INSTANCE = InstanceMetadata(
    computer_name="imds-host",
    admin_username="imds-user",
    ssh_public_keys=(SshPublicKey(value=KEY),),
    disable_password_authentication=True,
)
ALL_OFF = Options(
    **dict.fromkeys(
        (
            *("hostname", "hostname_publish", "user", "password", "ssh_keys", "host_keys", "sshd", "sudo"),
            *("custom_data", "ovf_env", "eject"),
        ),
        Policy.OFF,
    )  # type: ignore[arg-type]  # the values are all of the fields' type
)


def make_plan(evidence: Evidence, options: Options = Options()) -> Plan:  # noqa: B008  # immutable
    return plan_provisioning(evidence, options)


def properties(evidence: Evidence) -> Properties:
    return make_plan(evidence).properties


def actions_of(plan: Plan, kind: type) -> list[object]:
    return [step.action for step in plan.steps if type(step.action) is kind]


def test_media_is_authoritative_and_differences_are_told() -> None:
    plan = make_plan(Evidence(ovf=OVF, instance=INSTANCE))
    assert plan.properties.hostname == ("media-host", "media")
    assert plan.properties.username == ("media-user", "media")
    assert plan.differences == (
        "hostname: media has media-host, IMDS has imds-host",
        "username: media has media-user, IMDS has imds-user",
        "ssh_public_keys: IMDS has 1 that the media does not have",
    )


def test_what_was_not_compared_is_told_from_what_agrees() -> None:
    assert make_plan(Evidence(ovf=OVF)).differences is None
    agreeing = INSTANCE._replace(computer_name="media-host", admin_username="media-user", ssh_public_keys=())
    assert make_plan(Evidence(ovf=OVF, instance=agreeing)).differences == ()


def test_imds_adds_no_key_to_complete_media() -> None:
    assert properties(Evidence(ovf=OVF, instance=INSTANCE)).ssh_public_keys is None


def test_imds_fills_what_the_media_lacks() -> None:
    found = properties(Evidence(ovf=OVF._replace(username=None), instance=INSTANCE))
    assert found.username == ("imds-user", "imds")
    assert found.ssh_public_keys == ((KEY,), "imds")
    assert found.disable_ssh_password_authentication == (True, "imds")
    assert found.hostname == ("media-host", "media")


def test_imds_alone_is_enough() -> None:
    plan = make_plan(Evidence(instance=INSTANCE))
    assert actions_of(plan, SetHostname) == [SetHostname("imds-host", hosts_file=True)]
    assert actions_of(plan, WriteAuthorizedKeys) == [WriteAuthorizedKeys("imds-user", (KEY,), groups=Options().groups)]
    assert actions_of(plan, SetPassword) == []


def test_the_password_is_set_by_the_hash_that_came_with_it() -> None:
    password_hash = Secret("$6$salt$hash")
    plan = make_plan(Evidence(ovf=OVF, password_hash=password_hash))
    assert actions_of(plan, SetPassword) == [SetPassword("media-user", PASSWORD, password_hash)]


def test_keys_of_the_media_are_used_when_every_one_has_a_value() -> None:
    ovf = OVF._replace(ssh_public_keys=(SshPublicKey(value=OTHER_KEY),))
    assert properties(Evidence(ovf=ovf, instance=INSTANCE)).ssh_public_keys == ((OTHER_KEY,), "media")


def test_keys_known_by_fingerprint_are_completed_by_imds() -> None:
    ovf = OVF._replace(ssh_public_keys=(SshPublicKey(value=None, fingerprint="AB"), SshPublicKey(value=OTHER_KEY)))
    assert properties(Evidence(ovf=ovf, instance=INSTANCE)).ssh_public_keys == ((KEY, OTHER_KEY), "imds")


def test_a_key_that_appears_twice_is_written_once() -> None:
    ovf = OVF._replace(ssh_public_keys=(SshPublicKey(value=KEY), SshPublicKey(value=f"{KEY}\r\n")))
    assert properties(Evidence(ovf=ovf)).ssh_public_keys == ((KEY,), "media")


def keys_of(*values: str) -> tuple[SshPublicKey, ...]:
    return tuple(SshPublicKey(value=value, path="/p") for value in values)


def test_good_keys_are_used_and_an_invalid_one_named_by_index_and_path() -> None:
    plan = make_plan(Evidence(ovf=OVF._replace(password=None, ssh_public_keys=keys_of(KEY, "rubbish"))))
    [action] = actions_of(plan, WriteAuthorizedKeys)
    assert isinstance(action, WriteAuthorizedKeys)
    assert action.keys == (KEY,)
    [note] = plan.notes
    assert note.startswith("passed over: invalid SSH public key: where=key 1 for /p")


def test_without_a_usable_key_and_a_password_the_keys_fail_under_their_policy() -> None:
    [step] = refusals(make_plan(Evidence(ovf=OVF._replace(password=None, ssh_public_keys=keys_of("rubbish")))))
    assert (step.name, step.policy) == ("write-authorized-keys", Policy.REQUIRED)


def test_with_a_password_no_key_is_needed() -> None:
    [step] = refusals(make_plan(Evidence(ovf=OVF._replace(ssh_public_keys=keys_of("rubbish")))))
    assert (step.name, step.policy) == ("write-authorized-keys", Policy.BEST_EFFORT)


def refusals(plan: Plan) -> list[Step]:
    return [step for step in plan.steps if isinstance(step.action, UnusableValue)]


FAULT = ProvisioningError(Reason.OVF_INVALID, element="X")


@pytest.mark.parametrize(
    ("name", "absent", "step", "setting"),
    [
        ("hostname", {"hostname": None}, "set-hostname", "hostname"),
        ("username", {"username": None}, "ensure-user", "user"),
        ("password", {"password": None}, "set-password", "password"),
        ("custom_data", {}, "write-custom-data", "custom_data"),
        ("disable_ssh_password_authentication", {}, "configure-sshd", "sshd"),
    ],
)
@pytest.mark.parametrize("policy", Policy)
def test_a_value_that_cannot_be_used_fails_under_its_own_policy(
    name: str, absent: dict[str, None], step: str, setting: str, policy: Policy
) -> None:
    ovf = OVF._replace(ssh_public_keys=keys_of(KEY), faults=Faults({name: FAULT}))
    ovf = OvfEnv(**(ovf._asdict() | absent))
    others = dict.fromkeys(("user", "password", "ssh_keys", "sudo"), Policy.OFF) if name == "username" else {}
    options = Options(**(others | {setting: policy}))  # type: ignore[arg-type]  # the values are policies
    # Another source has a value, which nobody asked for.
    plan = make_plan(Evidence(ovf=ovf, instance=INSTANCE), options)
    [refused] = refusals(plan)
    assert (refused.name, refused.policy, refused.phase) == (step, policy, Phase.BEFORE_CHANGES)
    assert refused.action == UnusableValue(Reason.OVF_INVALID, (("element", "X"),))


def test_what_imds_says_wrongly_matters_only_where_it_is_needed() -> None:
    instance = INSTANCE._replace(computer_name=None, faults=Faults({"hostname": FAULT}))
    assert refusals(make_plan(Evidence(ovf=OVF, instance=instance))) == []
    [step] = refusals(make_plan(Evidence(instance=instance)))
    assert step.name == "set-hostname"


def test_later_evidence_refuses_nothing_twice() -> None:
    evidence = Evidence(ovf=OVF._replace(ssh_public_keys=keys_of("rubbish")))
    assert make_plan(evidence._replace(instance=InstanceMetadata())).beyond(make_plan(evidence)) == ()


def test_a_vm_of_which_nothing_was_asked_keeps_all_that_it_has() -> None:
    asked_nothing = InstanceMetadata(asks_nothing=True)
    assert make_plan(Evidence(instance=asked_nothing, no_disc=True)).steps == ()
    with_user_data = Evidence(instance=asked_nothing._replace(user_data=b"u"), no_disc=True)
    assert [step.name for step in make_plan(with_user_data).steps] == ["write-user-data"]
    with pytest.raises(ProvisioningError):  # the disc may be there, and unreadable
        make_plan(Evidence(instance=asked_nothing))


def test_without_a_disc_the_account_may_be_there_from_an_earlier_boot() -> None:
    evidence = Evidence(instance=INSTANCE._replace(ssh_public_keys=()), no_disc=True)
    plan = make_plan(evidence)
    assert actions_of(plan, KeepAccount) == [KeepAccount("imds-user")]
    assert {type(step.action) for step in plan.steps}.isdisjoint({EnsureUser, SetPassword, GrantSudo, ConfigureSshd})


def test_user_data_stands_in_for_custom_data_under_its_own_name() -> None:
    plan = make_plan(Evidence(ovf=OVF, instance=INSTANCE._replace(user_data=b"u")))
    stored = {step.name: step.action.contents for step in plan.steps if isinstance(step.action, StoreFile)}
    assert stored == {"write-custom-data": None, "write-user-data": b"u"}


def test_user_data_is_not_stored_beside_custom_data() -> None:
    plan = make_plan(Evidence(ovf=OVF._replace(custom_data=b"c"), instance=INSTANCE._replace(user_data=b"u")))
    stored = {step.name: step.action.contents for step in plan.steps if isinstance(step.action, StoreFile)}
    assert stored == {"write-custom-data": b"c", "write-user-data": None}


def test_custom_data_bin_is_used_when_the_ovf_env_has_none() -> None:
    assert properties(Evidence(ovf=OVF, custom_data_bin=b"bin")).custom_data == (b"bin", "media")
    both = Evidence(ovf=OVF._replace(custom_data=b"xml"), custom_data_bin=b"bin")
    assert properties(both).custom_data == (b"xml", "media")


def test_promised_custom_data_that_is_missing_fails_only_where_configured() -> None:
    evidence = Evidence(ovf=OVF, instance=INSTANCE._replace(has_custom_data=True))
    make_plan(evidence)
    with pytest.raises(ProvisioningError) as caught:
        make_plan(evidence, Options(custom_data_missing=OnMissing.FAIL))
    assert caught.value.reason is Reason.MISSING_PROPERTY


@pytest.mark.parametrize(
    ("disable", "password", "wanted"),
    [(True, PASSWORD, False), (True, None, False), (False, PASSWORD, True), (None, PASSWORD, True)],
)
def test_password_login_follows_the_platform(disable: bool | None, password: Secret | None, wanted: bool) -> None:
    keys = (SshPublicKey(value=KEY),)
    ovf = OVF._replace(disable_ssh_password_authentication=disable, password=password, ssh_public_keys=keys)
    (action,) = actions_of(make_plan(Evidence(ovf=ovf)), ConfigureSshd)
    assert isinstance(action, ConfigureSshd)
    assert action.password_authentication is wanted


@pytest.mark.parametrize("disable", [False, None])
def test_password_login_is_never_opened_without_a_password(disable: bool | None) -> None:
    ovf = OVF._replace(
        disable_ssh_password_authentication=disable, password=None, ssh_public_keys=(SshPublicKey(value=KEY),)
    )
    assert actions_of(make_plan(Evidence(ovf=ovf)), ConfigureSshd) == []


@pytest.mark.parametrize(
    ("ask", "password", "asks"),
    [
        (AskPassword.AUTO, PASSWORD, True),
        (AskPassword.AUTO, None, False),
        (AskPassword.ALWAYS, None, True),
        (AskPassword.NEVER, PASSWORD, False),
    ],
)
def test_sudo_asks_for_a_password_that_exists(ask: AskPassword, password: Secret | None, asks: bool) -> None:
    ovf = OVF._replace(password=password, ssh_public_keys=(SshPublicKey(value=KEY),))
    (action,) = actions_of(make_plan(Evidence(ovf=ovf), Options(sudo_ask_password=ask)), GrantSudo)
    assert isinstance(action, GrantSudo)
    assert action.ask_password is asks


@pytest.mark.parametrize("kind", ["Running", "Savable", "PreprovisionedOSDisk", "Unheard"])
def test_a_pooled_vm_is_refused_by_its_type(kind: str) -> None:
    for evidence in (
        Evidence(ovf=OVF._replace(preprovisioned_vm=True, preprovisioned_vm_type=kind)),
        Evidence(instance=INSTANCE._replace(pps_type=kind)),
    ):
        with pytest.raises(ProvisioningError) as caught:
            make_plan(evidence)
        assert caught.value.reason is Reason.UNSUPPORTED_PREPROVISIONING
        assert caught.value.data == {"type": kind}


def test_a_pooled_vm_waits_where_it_is_to_and_nothing_of_the_pool_is_applied() -> None:
    options = Options(preprovisioning=OnPool.WAIT)
    pooled = OVF._replace(preprovisioned_vm=True)
    for evidence, kind in (
        (Evidence(ovf=pooled), "Running"),
        (Evidence(ovf=pooled._replace(preprovisioned_vm_type="Savable")), "Savable"),
        (Evidence(instance=INSTANCE._replace(pps_type="PreprovisionedOSDisk")), "PreprovisionedOSDisk"),
    ):
        plan = plan_provisioning(evidence, options)
        assert [step.name for step in plan.steps] == ["wait-in-pool"]
        assert (plan.pool_type, plan.properties.hostname, plan.properties.username) == (kind, None, None)
    with pytest.raises(ProvisioningError) as caught:
        plan_provisioning(Evidence(ovf=pooled._replace(preprovisioned_vm_type="Unheard")), options)
    assert caught.value.data == {"type": "Unheard"}


def test_what_the_ovf_env_of_the_owner_says_of_a_pool_is_not_asked_but_imds_is() -> None:
    options = Options(preprovisioning=OnPool.WAIT, left_pool=True)
    pooled = OVF._replace(preprovisioned_vm=True, password=PASSWORD)
    assert "wait-in-pool" not in [step.name for step in plan_provisioning(Evidence(ovf=pooled), options).steps]
    with pytest.raises(ProvisioningError) as caught:
        plan_provisioning(Evidence(ovf=pooled, instance=INSTANCE._replace(pps_type="Running")), options)
    assert caught.value.reason is Reason.IMDS_INVALID


def test_a_pooled_vm_without_a_type_is_refused_too() -> None:
    with pytest.raises(ProvisioningError) as caught:
        make_plan(Evidence(ovf=OVF._replace(preprovisioned_vm=True)))
    assert caught.value.reason is Reason.UNSUPPORTED_PREPROVISIONING


def test_the_media_says_whether_the_vm_is_pooled_not_imds() -> None:
    make_plan(Evidence(ovf=OVF, instance=INSTANCE._replace(pps_type="Running")))


@pytest.mark.parametrize(
    ("evidence", "reason", "data"),
    [
        (Evidence(instance=INSTANCE._replace(computer_name=None)), Reason.MISSING_PROPERTY, {"property": "hostname"}),
        (Evidence(instance=INSTANCE._replace(admin_username=None)), Reason.MISSING_PROPERTY, {"property": "username"}),
        (Evidence(instance=INSTANCE._replace(ssh_public_keys=())), Reason.NO_CREDENTIALS, {"username": "imds-user"}),
        (Evidence(ovf=OVF._replace(password=None)), Reason.NO_CREDENTIALS, {"username": "media-user"}),
    ],
)
def test_what_is_required_must_come_from_some_source(evidence: Evidence, reason: Reason, data: dict[str, str]) -> None:
    with pytest.raises(ProvisioningError) as caught:
        make_plan(evidence)
    assert (caught.value.reason, caught.value.data) == (reason, data)


def test_with_every_policy_off_nothing_is_required_and_nothing_carried_out() -> None:
    assert make_plan(Evidence(instance=InstanceMetadata()), ALL_OFF).steps
    for evidence in (Evidence(instance=InstanceMetadata()), Evidence(ovf=OVF, device="/dev/sr0")):
        assert {step.policy for step in make_plan(evidence, ALL_OFF).steps} == {Policy.OFF}


def test_the_proxy_agent_is_checked_where_the_vm_has_one() -> None:
    plan = make_plan(Evidence(ovf=OVF._replace(provision_guest_proxy_agent=True)))
    assert plan.steps[0].action == CheckProxyAgent()
    assert plan.steps[0].policy is Policy.REQUIRED


def test_the_disc_is_ejected_where_it_came_from_a_drive() -> None:
    assert actions_of(make_plan(Evidence(ovf=OVF, device="/dev/sr0")), EjectMedia) == [EjectMedia("/dev/sr0")]
    assert actions_of(make_plan(Evidence(ovf=OVF)), EjectMedia) == []


@pytest.mark.parametrize(
    ("data", "configured", "path"),
    [
        (b"#!/bin/sh\n", Execute.BEFORE_READY, "/s/custom-data"),
        (b"#!/bin/sh\n", Execute.AFTER_READY, "/s/custom-data"),
        (gzip.compress(b"#!/bin/sh\n"), Execute.BEFORE_READY, "/s/custom-data.decoded"),
        (b"#!/bin/sh\n", Execute.NEVER, None),
        (b"x", Execute.BEFORE_READY, None),
    ],
)
def test_custom_data_is_run_only_if_it_is_a_program_and_configured(
    data: bytes, configured: Execute, path: str | None
) -> None:
    options = Options(state_dir="/s", custom_data_execute=configured)
    plan = make_plan(Evidence(ovf=OVF._replace(custom_data=data)), options)
    paths = [step.action.path for step in plan.steps if isinstance(step.action, ExecuteCustomData)]
    assert paths == ([path] if path else [])


def test_what_comes_after_ready_or_only_warns_does_not_forbid_ready() -> None:
    ovf = OVF._replace(custom_data=b"#!/bin/sh\n")
    for options in (
        Options(custom_data_execute=Execute.AFTER_READY),
        Options(custom_data_execute=Execute.BEFORE_READY, custom_data_failure=OnFailure.WARN),
    ):
        (step,) = (step for step in make_plan(Evidence(ovf=ovf), options).steps if step.name == "execute-custom-data")
        assert step.policy is Policy.BEST_EFFORT


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b"#cloud-config\n", "customData (14 bytes, #cloud-config) is stored, not interpreted"),
        (
            b"#!/bin/sh\n",
            "customData (10 bytes, a script) is stored, not interpreted; custom-data.execute would run it",
        ),
        (b"\x1f\x8b1", "customData (3 bytes, gzip) is stored, not decoded: it is damaged or too large"),
        (b"plain", None),
    ],
)
def test_a_format_that_others_interpret_is_told(data: bytes, note: str | None) -> None:
    plan = make_plan(Evidence(ovf=OVF._replace(custom_data=data)))
    assert plan.notes == ((note,) if note else ())
    assert make_plan(Evidence(ovf=OVF._replace(custom_data=data)), ALL_OFF).notes == ()


def test_gzip_is_decoded_beside_its_bytes() -> None:
    data = gzip.compress(b"#cloud-config\n", mtime=0)
    plan = make_plan(Evidence(ovf=OVF._replace(custom_data=data)), Options(state_dir="/s"))
    assert StoreFile("/s/custom-data", data, b"#cloud-config\n") in actions_of(plan, StoreFile)
    assert plan.notes == (
        f"customData ({len(data)} bytes, gzip of 14 bytes, #cloud-config) is stored, not interpreted",
    )


def test_the_account_is_made_as_configured() -> None:
    options = Options(shell="/bin/ash", groups=("a", "b"), allow_system_account=True, state_dir="/s")
    (action,) = actions_of(make_plan(Evidence(ovf=OVF), options), EnsureUser)
    assert action == EnsureUser("media-user", "/bin/ash", ("a", "b"), True)


def test_later_evidence_adds_steps_and_repeats_none() -> None:
    early = Evidence(ovf=OVF)
    first = make_plan(early)
    assert make_plan(early._replace(instance=InstanceMetadata())).beyond(first) == ()
    later = make_plan(early._replace(instance=InstanceMetadata(user_data=b"u")))
    assert [step.name for step in later.beyond(first)] == ["write-user-data"]


@pytest.mark.parametrize(
    ("ovf", "complete"),
    [
        (OVF, True),
        (OVF._replace(username=None), False),
        (OVF._replace(password=None), False),
        (OVF._replace(password=None, ssh_public_keys=(SshPublicKey(value=KEY),)), True),
        (OVF._replace(ssh_public_keys=(SshPublicKey(value=None, fingerprint="AB"),)), False),
    ],
)
def test_complete_media_need_not_wait_for_imds(ovf: OvfEnv, complete: bool) -> None:
    assert is_complete(ovf, Options()) is complete


def test_media_without_a_user_are_complete_where_none_is_wanted() -> None:
    assert is_complete(OVF._replace(username=None, password=None), ALL_OFF)


@pytest.mark.parametrize(
    ("evidence", "options", "all_there"),
    [
        (Evidence(ovf=FULL), Options(), True),
        (Evidence(ovf=FULL._replace(custom_data=None)), Options(), False),  # there may be userData
        (Evidence(ovf=FULL._replace(custom_data=None), custom_data_bin=b"c"), Options(), True),
        (Evidence(ovf=FULL._replace(custom_data=None)), Options(custom_data=Policy.OFF), True),
        (Evidence(ovf=FULL._replace(disable_ssh_password_authentication=None)), Options(), False),
        (Evidence(ovf=FULL._replace(hostname=None)), Options(), False),
        (Evidence(ovf=FULL._replace(hostname=None)), Options(hostname=Policy.OFF), True),
        (Evidence(ovf=FULL._replace(username=None)), Options(), False),
        (Evidence(), Options(), False),
    ],
)
def test_imds_is_waited_for_only_where_it_has_something_to_add(
    evidence: Evidence, options: Options, all_there: bool
) -> None:
    assert has_all(evidence, options) is all_there
