"""VirtualMachine -> the instance document of IMDS.

Fields, spelling and types follow MicrosoftDocs/azure-compute-docs, instance-metadata-service.md: every primitive is a
string, and what does not apply is there as an empty one. A field appears with the api-version that introduced it.
The `extended` part, which that page does not describe, is that of Azure/azure-init's testing server.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .vm import VirtualMachine

# Field of `compute` -> the version that introduced it, where that is later than 2017-04-02.
_INTRODUCED = {
    "placementGroupId": "2017-08-01",
    "resourceGroupName": "2017-08-01",
    "subscriptionId": "2017-08-01",
    "tags": "2017-08-01",
    "vmScaleSetName": "2017-12-01",
    "zone": "2017-12-01",
    "plan": "2018-04-02",
    "publicKeys": "2018-04-02",
    "azEnvironment": "2018-10-01",
    "provider": "2018-10-01",
    "customData": "2019-02-01",
    "resourceId": "2019-03-11",
    "storageProfile": "2019-06-01",
    "tagsList": "2019-06-04",
    "isHostCompatibilityLayerVm": "2020-06-01",
    "securityProfile": "2020-06-01",
    "osProfile": "2020-07-15",
    "licenseType": "2020-09-01",
    "evictionPolicy": "2020-12-01",
    "priority": "2020-12-01",
    "userData": "2021-01-01",
    "extendedLocation": "2021-03-01",
    "virtualMachineScaleSet": "2021-03-01",
    "platformSubFaultDomain": "2021-10-01",
    "additionalCapabilities": "2021-11-01",
    "host": "2021-11-15",
    "hostGroup": "2021-11-15",
    "physicalZone": "2023-11-15",
}
_EXTENDED_INTRODUCED = "2021-08-01"

# What a partial answer lacks: everything provisioning needs (Azure/azure-init#134).
_PROVISIONING_FIELDS = frozenset({"osProfile", "publicKeys", "userData"})


def build_instance(vm: VirtualMachine, *, api_version: str, extended: bool) -> dict[str, object]:
    """Return what ``/metadata/instance`` says of the VM to a reader of that version."""
    compute = {
        field: value for field, value in _compute(vm, api_version).items() if api_version >= _INTRODUCED.get(field, "")
    }
    if vm.imds_partial_unless_extended and not extended:
        compute = {field: value for field, value in compute.items() if field not in _PROVISIONING_FIELDS}
    document: dict[str, object] = {"compute": compute, "network": {"interface": [_interface(vm)]}}
    if extended and api_version >= _EXTENDED_INTRODUCED:
        document["extended"] = {
            "compute": {"hasCustomData": vm.custom_data is not None, "ppsType": vm.preprovisioned_vm_type or "None"}
        }
    return document


def _compute(vm: VirtualMachine, api_version: str) -> dict[str, object]:
    resource_id = (
        f"/subscriptions/{vm.subscription_id}/resourceGroups/{vm.resource_group}"
        f"/providers/Microsoft.Compute/virtualMachines/{vm.name}"
    )
    os_profile = {"adminUsername": vm.username, "computerName": vm.hostname}
    if api_version >= "2020-10-01":
        os_profile["disablePasswordAuthentication"] = _flag(vm.disable_password_authentication)
    return {
        "additionalCapabilities": {"hibernationEnabled": "false"},
        "azEnvironment": "AzurePublicCloud",
        "customData": "",
        "evictionPolicy": "",
        "extendedLocation": {"name": "", "type": ""},
        "host": {"id": ""},
        "hostGroup": {"id": ""},
        "isHostCompatibilityLayerVm": "false",
        "licenseType": "",
        "location": vm.location,
        "name": vm.name,
        "offer": "",
        "osProfile": os_profile,
        "osType": "Linux",
        "physicalZone": "",
        "placementGroupId": "",
        "plan": {"name": "", "product": "", "publisher": ""},
        "platformFaultDomain": "0",
        "platformSubFaultDomain": "",
        "platformUpdateDomain": "0",
        "priority": "",
        "provider": "Microsoft.Compute",
        "publicKeys": [
            {"keyData": key.value, "path": key.path or f"/home/{vm.username}/.ssh/authorized_keys"}
            for key in vm.ssh_public_keys
            if key.value is not None
        ],
        "publisher": "",
        "resourceGroupName": vm.resource_group,
        "resourceId": resource_id,
        "securityProfile": {
            "encryptionAtHost": "false",
            "secureBootEnabled": "false",
            "securityType": "",
            "virtualTpmEnabled": "false",
        },
        "sku": "",
        "storageProfile": _storage(vm),
        "subscriptionId": vm.subscription_id,
        "tags": "",
        "tagsList": [],
        "userData": base64.b64encode(vm.user_data or b"").decode(),
        "version": "",
        "virtualMachineScaleSet": {"id": ""},
        "vmId": vm.vm_id,
        "vmScaleSetName": "",
        "vmSize": vm.vm_size,
        "zone": "",
    }


def _storage(vm: VirtualMachine) -> dict[str, object]:
    return {
        "dataDisks": [],
        "imageReference": {
            "communityGalleryImageId": "",
            "exactVersion": "",
            "id": "",
            "offer": "",
            "publisher": "",
            "sharedGalleryImageId": "",
            "sku": "",
            "version": "",
        },
        "osDisk": {
            "caching": "ReadWrite",
            "createOption": "FromImage",
            "diffDiskSettings": {"option": ""},
            "diskSizeGB": "30",
            "encryptionSettings": {
                "diskEncryptionKey": {"secretUrl": "", "sourceVault": {"id": ""}},
                "enabled": "false",
                "keyEncryptionKey": {"keyUrl": "", "sourceVault": {"id": ""}},
            },
            "image": {"uri": ""},
            "managedDisk": {"id": "", "storageAccountType": "Premium_LRS"},
            "name": f"{vm.name}_OsDisk_1",
            "osType": "Linux",
            "vhd": {"uri": ""},
            "writeAcceleratorEnabled": "false",
        },
        "resourceDisk": {"size": "0"},
    }


def _interface(vm: VirtualMachine) -> dict[str, object]:
    return {
        "ipv4": {
            "ipAddress": [{"privateIpAddress": vm.private_ip_address, "publicIpAddress": ""}],
            "subnet": [{"address": vm.private_ip_address.rpartition(".")[0] + ".0", "prefix": "24"}],
        },
        "ipv6": {"ipAddress": []},
        "macAddress": vm.mac_address,
    }


def _flag(value: bool | None) -> str:
    return "" if value is None else "true" if value else "false"
