"""The emulated VM's documents say what the VM says, as minprov's own parsers and readers understand them."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.discs import udf
from minprov.discs.reader import read_media
from minprov.emulator.goal_state import build_goal_state
from minprov.emulator.instance import build_instance
from minprov.emulator.media import media_files, write_media
from minprov.emulator.ovf_env import build_ovf_env
from minprov.emulator.sample import sample_media
from minprov.emulator.vm import IMDS_API_VERSIONS, SAMPLE_VM, VM_CONVERTERS, VirtualMachine, load_vm
from minprov.errors import ProvisioningError, Reason
from minprov.imds import parse_instance
from minprov.media import read_ovf_env
from minprov.model import Secret, SshPublicKey
from minprov.ovf import parse_ovf_env

if TYPE_CHECKING:
    from pathlib import Path

    from minprov.model import OvfEnv

# What XML 1.0 can carry (2.2 "Characters") in one line, as passwords and key comments are.
line = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Co", "Cn")), min_size=1).filter(
    lambda text: text == text.strip()
)
name = st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True)
key = st.builds(SshPublicKey, value=line, path=st.none() | line, fingerprint=st.none() | line)
machines = st.builds(
    VirtualMachine,
    hostname=name,
    username=name,
    password=st.none() | st.builds(Secret, line),
    disable_password_authentication=st.none() | st.booleans(),
    ssh_public_keys=st.lists(key, max_size=3).map(tuple),
    custom_data=st.none() | st.binary(min_size=1),
    user_data=st.none() | st.binary(min_size=1),
    preprovisioned_vm=st.booleans(),
    preprovisioned_vm_type=st.sampled_from([None, "Running", "Savable", "PreprovisionedOSDisk"]),
    provision_guest_proxy_agent=st.booleans(),
)


def assert_ovf_env_is_of(vm: VirtualMachine, env: OvfEnv) -> None:
    assert env.hostname == vm.hostname
    assert env.username == vm.username
    assert (env.password and env.password.reveal()) == (vm.password and vm.password.reveal())
    assert env.disable_ssh_password_authentication == vm.disable_password_authentication
    assert env.ssh_public_keys == vm.ssh_public_keys
    assert env.custom_data == vm.custom_data
    assert env.preprovisioned_vm == vm.preprovisioned_vm
    assert env.preprovisioned_vm_type == vm.preprovisioned_vm_type
    assert env.provision_guest_proxy_agent == vm.provision_guest_proxy_agent


@given(vm=machines)
def test_the_ovf_env_carries_every_property(vm: VirtualMachine) -> None:
    assert_ovf_env_is_of(vm, parse_ovf_env(build_ovf_env(vm)))


def test_a_carriage_return_survives_the_ovf_env() -> None:
    # XML 1.0, 2.11: one that is not escaped would be read back as a line feed.
    key = SshPublicKey(value="---- BEGIN SSH2 PUBLIC KEY ----\r\nAAAA\r\n---- END SSH2 PUBLIC KEY ----")
    root = ElementTree.fromstring(build_ovf_env(dataclasses.replace(SAMPLE_VM, ssh_public_keys=(key,))))
    assert root.findtext(".//{http://schemas.microsoft.com/windowsazure}Value") == key.value


@given(vm=machines, api_version=st.sampled_from([version for version in IMDS_API_VERSIONS if version >= "2021-08-01"]))
def test_the_instance_document_carries_every_property_imds_has(vm: VirtualMachine, api_version: str) -> None:
    document = build_instance(vm, api_version=api_version, extended=True)
    metadata = parse_instance(json.dumps(document).encode())
    assert metadata.vm_id == vm.vm_id
    assert metadata.computer_name == vm.hostname
    assert metadata.admin_username == vm.username
    assert metadata.disable_password_authentication == vm.disable_password_authentication
    assert [key.value for key in metadata.ssh_public_keys] == [key.value for key in vm.ssh_public_keys]
    assert metadata.user_data == vm.user_data
    assert metadata.has_custom_data == (vm.custom_data is not None)
    assert metadata.pps_type == vm.preprovisioned_vm_type


@given(vm=machines, extended=st.booleans(), api_version=st.sampled_from(IMDS_API_VERSIONS))
def test_imds_never_tells_password_or_custom_data(vm: VirtualMachine, extended: bool, api_version: str) -> None:
    vm = dataclasses.replace(vm, password=Secret("Canary-Passw0rd"), custom_data=b"canary")
    document = json.dumps(build_instance(vm, api_version=api_version, extended=extended))
    assert "Canary" not in document
    assert "canary" not in document
    assert "Y2FuYXJ5" not in document, "base64 of the same"


def test_imds_primitives_are_strings_outside_the_extended_part() -> None:
    # "In json responses, all primitives will be of type string" (instance-metadata-service.md, "Data format").
    def leaves(node: object) -> list[object]:
        if isinstance(node, dict):
            return [leaf for value in node.values() for leaf in leaves(value)]
        if isinstance(node, list):
            return [leaf for value in node for leaf in leaves(value)]
        return [node]

    document = build_instance(SAMPLE_VM, api_version=IMDS_API_VERSIONS[-1], extended=False)
    assert {type(leaf) for leaf in leaves(document)} == {str}


@pytest.mark.parametrize(
    ("api_version", "fields"),
    [
        ("2017-04-02", set()),
        ("2018-04-02", {"publicKeys"}),
        ("2019-06-01", {"publicKeys"}),
        ("2020-07-15", {"publicKeys", "osProfile"}),
        ("2021-01-01", {"publicKeys", "osProfile", "userData"}),
    ],
)
def test_a_field_appears_with_the_version_that_introduced_it(api_version: str, fields: set[str]) -> None:
    compute = build_instance(SAMPLE_VM, api_version=api_version, extended=True)["compute"]
    assert isinstance(compute, dict)
    assert compute.keys() & {"publicKeys", "osProfile", "userData"} == fields
    assert compute["vmId"] == SAMPLE_VM.vm_id


# instance-metadata-service.md, "Schema breakdown", tables of Compute and of the image reference.
DOCUMENTED_COMPUTE = """
    azEnvironment additionalCapabilities customData evictionPolicy extendedLocation host hostGroup
    isHostCompatibilityLayerVm licenseType location name offer osProfile osType physicalZone placementGroupId plan
    platformUpdateDomain platformFaultDomain platformSubFaultDomain priority provider publicKeys publisher
    resourceGroupName resourceId sku securityProfile storageProfile subscriptionId tags tagsList userData version
    virtualMachineScaleSet vmId vmScaleSetName vmSize zone
"""
# Azure/WALinuxAgent, tests/data/hibernate/goal_state_1/GoalState.xml, in its order.
GOAL_STATE_ELEMENTS = """
    GoalState Version Incarnation Machine ExpectedState StopRolesDeadlineHint LBProbePorts Port ExpectHealthReport
    Container ContainerId RoleInstanceList RoleInstance InstanceId State Configuration HostingEnvironmentConfig
    SharedConfig ExtensionsConfig FullConfig Certificates ConfigName
"""
# Azure/WALinuxAgent, tests/data/ovf-env-2.xml, and PreprovisionedVMType of cloud-init's parser.
OVF_ENV_ELEMENTS = """
    Environment ProvisioningSection Version LinuxProvisioningConfigurationSet ConfigurationSetType HostName UserName
    UserPassword DisableSshPasswordAuthentication SSH PublicKeys PublicKey Path Value CustomData PlatformSettingsSection
    Version PlatformSettings KmsServerHostname ProvisionGuestAgent GuestAgentPackageName ProvisionGuestProxyAgent
    PreprovisionedVm PreprovisionedVMType
"""


def test_the_newest_instance_document_has_every_documented_field() -> None:
    compute = build_instance(SAMPLE_VM, api_version=IMDS_API_VERSIONS[-1], extended=False)["compute"]
    assert isinstance(compute, dict)
    assert sorted(compute) == sorted(DOCUMENTED_COMPUTE.split())


def test_the_goal_state_has_the_elements_of_a_real_one() -> None:
    root = ElementTree.fromstring(build_goal_state(SAMPLE_VM, "168.63.129.16"))
    assert [element.tag for element in root.iter()] == GOAL_STATE_ELEMENTS.split()


def test_the_ovf_env_has_the_elements_of_a_real_one() -> None:
    root = ElementTree.fromstring(build_ovf_env(SAMPLE_VM))
    assert [element.tag.partition("}")[2] for element in root.iter()] == OVF_ENV_ELEMENTS.split()


def test_partial_metadata_lacks_what_provisioning_needs_until_it_is_asked_for() -> None:
    vm = dataclasses.replace(SAMPLE_VM, imds_partial_unless_extended=True)
    partial, whole = (
        build_instance(vm, api_version="2023-11-15", extended=extended)["compute"] for extended in (False, True)
    )
    assert isinstance(partial, dict)
    assert isinstance(whole, dict)
    assert whole.keys() - partial.keys() == {"osProfile", "publicKeys", "userData"}


# Media


def test_written_media_reads_back_as_the_vm(tmp_path: Path) -> None:
    vm = dataclasses.replace(SAMPLE_VM, custom_data=bytes(range(256)) * 100, hostname="db-01")
    write_media(tmp_path / "media.iso", vm)
    media = read_media(str(tmp_path / "media.iso"))
    assert media.custom_data == vm.custom_data
    assert_ovf_env_is_of(vm, parse_ovf_env(media.ovf_env))


@pytest.mark.parametrize("blanked", [b"NSR02", b"CD001"])
def test_written_media_is_a_bridge_that_either_file_system_reads(tmp_path: Path, blanked: bytes) -> None:
    write_media(tmp_path / "media.iso", SAMPLE_VM)
    image = bytearray((tmp_path / "media.iso").read_bytes())
    found = [sector for sector in range(16, 32) if image[sector * 2048 + 1 : sector * 2048 + 6] == blanked]
    for sector in found:
        image[sector * 2048 : (sector + 1) * 2048] = bytes(2048)
    assert found
    (tmp_path / "half.iso").write_bytes(image)
    assert read_ovf_env(str(tmp_path / "half.iso")) == build_ovf_env(SAMPLE_VM)


def test_media_without_custom_data_has_no_file_for_it(tmp_path: Path) -> None:
    vm = dataclasses.replace(SAMPLE_VM, custom_data=None)
    assert "CustomData.bin" not in media_files(vm)
    write_media(tmp_path / "media.iso", vm)
    assert read_media(str(tmp_path / "media.iso")).custom_data is None


def test_media_that_cannot_be_written_is_an_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError) as caught:
        write_media(tmp_path / "missing" / "media.iso", SAMPLE_VM)
    assert caught.value.reason is Reason.WRITE_FAILED
    assert caught.value.data["path"].endswith("media.iso")


def test_without_pycdlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycdlib", None)
    with pytest.raises(ProvisioningError) as caught:
        write_media(tmp_path / "media.iso", SAMPLE_VM)
    assert caught.value.reason is Reason.TOOL_NOT_FOUND
    assert "minprov[emulator]" in str(caught.value)


def test_the_sample_media_reads_as_the_sample_vm_and_as_pure_udf() -> None:
    with sample_media() as image:
        media = read_media(str(image))
        data = image.read_bytes()
    assert media.ovf_env == build_ovf_env(SAMPLE_VM), "SAMPLE_VM changed: run data/make_sample_media.py"
    assert media.custom_data == SAMPLE_VM.custom_data
    assert b"CD001" not in data
    contents = udf.read_files(lambda offset, size: data[offset : offset + size], len(data), {"ovf-env.xml": 1 << 20})
    assert build_ovf_env(SAMPLE_VM) in contents.files.values()


# VM files


def test_a_vm_file_sets_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    (tmp_path / "init.sh").write_bytes(b"\x00\xff")
    (tmp_path / "vm.toml").write_text(
        """
        hostname = "db-01"
        password = "Canary-Passw0rd"
        disable-password-authentication = true
        ssh-public-keys = ["ssh-ed25519 AAAA a", { value = "ssh-rsa AAAA b", path = "/p" }, { fingerprint = "AB" }]
        custom-data = { file = "init.sh" }
        user-data = { base64 = "AAEC" }
        incarnation = 3
        """
    )
    vm = load_vm(tmp_path / "vm.toml")
    assert vm.password is not None
    assert vm.password.reveal() == "Canary-Passw0rd"
    assert dataclasses.replace(vm, password=None) == VirtualMachine(
        hostname="db-01",
        disable_password_authentication=True,
        ssh_public_keys=(
            SshPublicKey(value="ssh-ed25519 AAAA a"),
            SshPublicKey(value="ssh-rsa AAAA b", path="/p"),
            SshPublicKey(value=None, fingerprint="AB"),
        ),
        custom_data=b"\x00\xff",
        user_data=b"\x00\x01\x02",
        incarnation=3,
    )


def test_every_property_can_be_set_from_a_file() -> None:
    assert VM_CONVERTERS.keys() == {field.name for field in dataclasses.fields(VirtualMachine)}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("host-name = 'x'", "host-name"),
        ("vm_id = 'x'", "vm_id"),
        ("hostname = 1", "hostname"),
        ("incarnation = true", "incarnation"),
        ("preprovisioned-vm = 'true'", "preprovisioned-vm"),
        ("custom-data = 5", "custom-data"),
        ("custom-data = { base64 = '!' }", "custom-data"),
        ("custom-data = { file = 'missing' }", "custom-data"),
        ("custom-data = { file = 'a', base64 = '' }", "custom-data"),
        ("ssh-public-keys = 'ssh-rsa'", "ssh-public-keys"),
        ("ssh-public-keys = [{ key = 'ssh-rsa' }]", "ssh-public-keys"),
        ("imds-api-versions = '2019-06-01'", "imds-api-versions"),
    ],
)
def test_a_mistake_in_a_vm_file_is_named(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "vm.toml").write_text(text)
    with pytest.raises(ProvisioningError) as caught:
        load_vm(tmp_path / "vm.toml")
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert caught.value.data["key"] == key


def test_a_missing_vm_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError) as caught:
        load_vm(tmp_path / "vm.toml")
    assert caught.value.data["file"].endswith("vm.toml")
