"""VirtualMachine -> the ovf-env.xml of its provisioning media.

The shape is that of the files the platform writes: Azure's sections carry the prefix ``wa:``, the configuration set
inside declares the same namespace as its default, so that only a reader that matches namespaces, and not prefixes,
gets it right. CustomData is base64. (Azure/WALinuxAgent: tests/data/ovf-env-2.xml.)
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from minprov.model import SshPublicKey

    from .vm import VirtualMachine

_DOCUMENT = """\
<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" \
xmlns:wa="http://schemas.microsoft.com/windowsazure" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure" \
xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
      <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
{configuration}
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <wa:PlatformSettings>
{settings}
    </wa:PlatformSettings>
  </wa:PlatformSettingsSection>
</Environment>
"""


def build_ovf_env(vm: VirtualMachine) -> bytes:
    """Return the document as the platform would put it on the disc: UTF-8, without a byte order mark."""
    configuration = [_element("HostName", vm.hostname), _element("UserName", vm.username)]
    if vm.password is not None:
        configuration.append(_element("UserPassword", vm.password.reveal()))
    if vm.disable_password_authentication is not None:
        configuration.append(_element("DisableSshPasswordAuthentication", _flag(vm.disable_password_authentication)))
    if vm.ssh_public_keys:
        keys = "".join(_public_key(key) for key in vm.ssh_public_keys)
        configuration.append(f"<SSH><PublicKeys>{keys}</PublicKeys></SSH>")
    if vm.custom_data is not None:
        configuration.append(_element("CustomData", base64.b64encode(vm.custom_data).decode()))

    settings = [
        _element("wa:KmsServerHostname", "kms.core.windows.net"),
        _element("wa:ProvisionGuestAgent", _flag(vm.provision_guest_agent)),
        '<wa:GuestAgentPackageName xsi:nil="true" />',
        _element("wa:ProvisionGuestProxyAgent", _flag(vm.provision_guest_proxy_agent)),
        _element("wa:PreprovisionedVm", _flag(vm.preprovisioned_vm)),
        _element("wa:PreprovisionedVMType", vm.preprovisioned_vm_type)
        if vm.preprovisioned_vm_type is not None
        else '<wa:PreprovisionedVMType xsi:nil="true" />',
    ]
    return _DOCUMENT.format(
        configuration="\n".join(f"      {line}" for line in configuration),
        settings="\n".join(f"      {line}" for line in settings),
    ).encode()


def _public_key(key: SshPublicKey) -> str:
    fields = (("Fingerprint", key.fingerprint), ("Path", key.path), ("Value", key.value))
    return "<PublicKey>" + "".join(_element(tag, text) for tag, text in fields if text is not None) + "</PublicKey>"


def _element(tag: str, text: str) -> str:
    # A carriage return written as it is would come back as a line feed: XML 1.0, 2.11 "End-of-Line Handling".
    return f"<{tag}>{escape(text, {chr(13): '&#13;'})}</{tag}>"


def _flag(value: bool) -> str:
    return "true" if value else "false"
