"""What the keys of waagent.conf become in minprov.toml, and which of them have no counterpart.

The keys are those of waagent 2.0 to 2.15: config/waagent.conf and azurelinuxagent/common/conf.py of WALinuxAgent. A key
is translated by one small function, or is in `NOT_NEEDED` or `REFUSED` with the sentence that says why.
"""

from __future__ import annotations

import fnmatch
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from minprov.definitions import NamedTuple
from minprov.formats.waagent_conf import Entry, parse_waagent_conf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Value = str | bool | int


class Translation(NamedTuple):
    """What becomes of one entry: settings by key of minprov.toml, why, and whether something that is on is lost."""

    entry: Entry
    settings: dict[str, Value]
    note: str
    lost: bool = False


def translate(text: str) -> list[Translation]:
    """Return what becomes of each entry of a waagent.conf, in the order of the file."""
    entries = parse_waagent_conf(text)
    return [_translate(entry, entries) for entry in entries.values()]


def _translate(entry: Entry, entries: Mapping[str, Entry]) -> Translation:
    if entry.key in TRANSLATED:
        return TRANSLATED[entry.key](entry, entries)
    if entry.key in NOT_NEEDED:
        return Translation(entry, {}, NOT_NEEDED[entry.key])
    for pattern, note in REFUSED.items():
        if fnmatch.fnmatchcase(entry.key, pattern):
            return Translation(entry, {}, note, lost=entry.on or (pattern in VALUES and bool(entry.value)))
    nearest = get_close_matches(entry.key, [*TRANSLATED, *NOT_NEEDED, *REFUSED], n=1, cutoff=0)[0]
    return Translation(entry, {}, f"waagent has no such key; the nearest is {nearest}.", lost=entry.on)


# -- keys that are translated ------------------------------------------------------------------------------------------


def _agent(entry: Entry, _: Mapping[str, Entry]) -> Translation:
    if entry.value in ("waagent", "auto"):
        note = "waagent stays for extensions, and finds the VM provisioned; without its unit this line can go."
        return Translation(entry, {"other-provisioners": "prepare"}, note)
    return Translation(entry, {}, "minprov provisions; `minprov check` names each other agent that is enabled.")


def _switch(key: str, value: Value, note: str, *, when: bool = True) -> Callable[..., Translation]:
    """Return a function that makes a setting where a switch is on, or off; the defaults do for the other state."""

    def translate_switch(entry: Entry, _: Mapping[str, Entry]) -> Translation:
        applies = entry.on if when else (entry.value or "").lower() == "n"
        return Translation(entry, {key: value}, note) if applies else Translation(entry, {}, f"As {key} is by default.")

    return translate_switch


def _host_key_type(entry: Entry, _: Mapping[str, Entry]) -> Translation:
    if entry.value == "dsa":
        return Translation(entry, {}, "OpenSSH has no DSA keys any more; keys of the other types are made.", lost=True)
    return Translation(entry, {}, "Keys of all types are made, as with `auto`.")


def _password_method(entry: Entry, _: Mapping[str, Entry]) -> Translation:
    methods = {"6": "sha512", "5": "sha256"}
    if entry.value in methods:
        return Translation(entry, {"password.method": methods[entry.value]}, "A method of crypt(5).")
    return Translation(entry, {}, "Too weak, or unknown to crypt(5): SHA-512 is used.", lost=entry.value is not None)


def _of_disk(key: str, pattern: str, note: str) -> Callable[..., Translation]:
    """Return a function that makes a setting of the temporary disk, which is none while the disk is not mounted."""

    def translate_of_disk(entry: Entry, entries: Mapping[str, Entry]) -> Translation:
        if not _mounts_disk(entries):
            return Translation(entry, {}, "Of no meaning, since ResourceDisk.Format is off.")
        if entry.value is None:
            return Translation(entry, {}, f"Left to the default of {key}.")
        if not re.fullmatch(pattern, entry.value) or not entry.value.isprintable():
            return Translation(entry, {}, f"{key} cannot have this value; its default stays.", lost=True)
        return Translation(entry, {key: entry.value}, note)

    return translate_of_disk


def _swap(entry: Entry, entries: Mapping[str, Entry]) -> Translation:
    if not entry.on or not _mounts_disk(entries):
        return Translation(entry, {}, "No swap: it is off, or the temporary disk is not mounted.")
    return Translation(entry, {"swap.policy": "best-effort"}, "Needs the package minprov-duties.")


def _swap_size(entry: Entry, entries: Mapping[str, Entry]) -> Translation:
    swap = entries.get("ResourceDisk.EnableSwap")
    if not _mounts_disk(entries) or not (swap and swap.on):
        return Translation(entry, {}, "Of no meaning, since there is no swap.")
    if re.fullmatch(r"[1-9][0-9]{0,6}", entry.value or ""):
        return Translation(entry, {"swap.size": f"{entry.value}MiB"}, "Never more than half of the disk's free space.")
    return Translation(entry, {"swap.size": "auto"}, "No size that could be used: it goes by the memory.")


def _disk_timeout(entry: Entry, _: Mapping[str, Entry]) -> Translation:
    note = "Needs the package minprov-duties; for all SCSI disks, those attached later as well."
    if entry.value is None:
        return Translation(entry, {}, "waagent changes nothing then.")
    if re.fullmatch(r"[1-9][0-9]{0,4}", entry.value):
        settings: dict[str, Value] = {"disk-timeouts.policy": "best-effort", "disk-timeouts.scsi": int(entry.value)}
        return Translation(entry, settings, note)
    return Translation(entry, {}, "No time that could be used.", lost=True)


def _mounts_disk(entries: Mapping[str, Entry]) -> bool:
    return "ResourceDisk.Format" in entries and entries["ResourceDisk.Format"].on


TRANSLATED: dict[str, Callable[[Entry, Mapping[str, Entry]], Translation]] = {
    "Provisioning.Agent": _agent,
    "Provisioning.DeleteRootPassword": _switch(
        "root-password.policy", "required", "It is locked, once the user can become root."
    ),
    "Provisioning.RegenerateSshHostKeyPair": _switch(
        "host-keys.policy", "anew", "Those that the image has are replaced, once for each VM."
    ),
    "Provisioning.SshHostKeyPairType": _host_key_type,
    "Provisioning.ExecuteCustomData": _switch(
        "custom-data.execute", value=True, note="Run once, and only if it begins with `#!`."
    ),
    "Provisioning.AllowResetSysUser": _switch(
        "user.allow-system-account", value=True, note="An account below UID_MIN may be the administrator."
    ),
    "Provisioning.PasswordCryptId": _password_method,
    "ResourceDisk.Format": _switch(
        "resource-disk.policy",
        "best-effort",
        "Needs the package minprov-duties. Only an empty disk is formatted; waagent formats others as well.",
    ),
    "ResourceDisk.Filesystem": _of_disk("resource-disk.file-system", "ext4|xfs|btrfs", "For an empty disk."),
    "ResourceDisk.MountPoint": _of_disk(
        "resource-disk.mount-point", r"/[^\s\x00]*", "An empty directory, or none yet."
    ),
    "ResourceDisk.MountOptions": _of_disk("resource-disk.options", r"[\w=.,:+@%/-]+", "Options of mount(8)."),
    "ResourceDisk.EnableSwap": _swap,
    "ResourceDisk.SwapSizeMB": _swap_size,
    "OS.RootDeviceScsiTimeout": _disk_timeout,
    "Logs.Verbose": _switch("log-level", "debug", "More messages in the journal."),
    "Logs.Console": _switch("report.console", "", "Nothing is written to the console.", when=False),
}

# -- keys without a counterpart ----------------------------------------------------------------------------------------

_HAS_NO_DAEMON = "minprov ends after provisioning, so there is no interval."
_OWN_PATH = "minprov has one directory, `state-dir`; waagent's own are of no meaning to it."
NOT_NEEDED = {
    "Provisioning.Enabled": "waagent has not read it since 2.2.45. minprov's unit is enabled or not.",
    "Provisioning.UseCloudInit": "waagent has not read it since 2.2.45. `minprov check` names agents that are enabled.",
    "Provisioning.DecodeCustomData": "customData is always decoded.",
    "Provisioning.PasswordCryptSaltLength": "Salts have 16 characters, the most that crypt(5) takes.",
    "Provisioning.MonitorHostNamePeriod": _HAS_NO_DAEMON,
    "OS.RootDeviceScsiTimeoutPeriod": "A udev rule sets it for each disk that appears.",
    "OS.SshDir": "The keys and the settings are where sshd itself looks for them.",
    "OS.SshClientAliveInterval": "A setting of sshd: ClientAliveInterval in a file of /etc/ssh/sshd_config.d.",
    "OS.OpensslPath": "openssl is not run.",
    "OS.EnableFIPS": "Nothing to switch: passwords are hashed with SHA-512, and openssl is not run.",
    "OS.HomeDir": "useradd(8) decides: HOME in /etc/default/useradd.",
    "Home.Dir": "useradd(8) decides: HOME in /etc/default/useradd.",
    "OS.PasswordPath": "Account tools write where the system has its passwords.",
    "OS.SudoersDir": "The file is set by `sudo.file`.",
    "Lib.Dir": _OWN_PATH,
    "Extension.LogDir": _OWN_PATH,
    "DVD.MountPoint": "The disc is read without being mounted.",
    "Pid.File": "No process stays.",
}
_EXTENSIONS = 'A waagent that stays does it, beside minprov: `other-provisioners = "prepare"`.'
_RESOURCES = "It limits waagent's own processes; minprov ends. systemd can limit what stays."
_RDMA = "The kernel's own drivers and udev's rules of rdma-core do it."
REFUSED = {
    "Provisioning.MonitorHostName": "minprov does not stay: `hostname.publish` sends the name once, after Ready.",
    "ResourceDisk.EnableSwapEncryption": "The swap file is not encrypted: the temporary disk is the VM's own.",
    "HttpProxy.*": "The platform's two addresses are never reached by a proxy, and nothing else is asked.",
    "Extensions.*": _EXTENSIONS,
    "Extension.*": _EXTENSIONS,
    "AutoUpdate.*": "The package manager updates minprov.",
    "Autoupdate.*": "The package manager updates minprov.",
    "GAUpdates.*": "The package manager updates minprov.",
    "Logs.Collect*": _EXTENSIONS,
    "OS.EnableRDMA": _RDMA,
    "OS.UpdateRdmaDriver": _RDMA,
    "OS.CheckRdmaDriver": _RDMA,
    "DetectScvmmEnv": "minprov provisions on Azure alone.",
    "EnableOverProvisioning": _EXTENSIONS,
    "LBProbeResponder": "No waagent since 2.1 has it; a load balancer asks the service itself.",
    "OS.EnableFirewall*": "nftables or iptables rules of the image do it.",
    "OS.AllowHTTP": "The two addresses are asked by HTTP, as the platform has them, and nothing else is asked.",
    "OS.RemovePersistentNetRulesPeriod": "`minprov check` finds rules that bind a name to a MAC address.",
    "OS.MonitorDhcpClientRestartPeriod": _HAS_NO_DAEMON,
    "Monitor.*": _HAS_NO_DAEMON,
    "CGroups.*": _RESOURCES,
    "ResourceGovernance*": _RESOURCES,
    "Debug.*": "A switch of waagent's own tests.",
    "Role.*": "No waagent since 2.1 has it: a unit ordered after minprov.service can be run in its place.",
}
"""By pattern; what has a value other than ``y`` is not switched on, but for those in `VALUES`."""
VALUES = ("HttpProxy.*", "Role.*")
