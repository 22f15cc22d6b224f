"""A waagent.conf becomes a minprov.toml that minprov itself reads; what cannot be had is named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minprov import config
from minprov.actions import Policy
from minprov.commands.import_waagent_conf import render
from minprov.config import HostKeys, Options, PasswordMethod
from minprov.duties.resource_disk.settings import FileSystem
from minprov.image.waagent_import import NOT_NEEDED, REFUSED, TRANSLATED, translate

if TYPE_CHECKING:
    from minprov.duties.resource_disk.settings import Options as DiskOptions

DEBIAN = Path(__file__).parents[1] / "data/waagent/debian-2.7.3.conf"
# Of waagent 2.0 to 2.15: config/waagent.conf and azurelinuxagent/common/conf.py.
KEYS = """
AutoUpdate.Enabled AutoUpdate.GAFamily AutoUpdate.UpdateToLatestVersion Autoupdate.Frequency CGroups.Enabled
CGroups.EnforceLimits CGroups.Excluded DVD.MountPoint Debug.AgentCpuQuota Debug.CgroupCheckPeriod Debug.EnableFastTrack
DetectScvmmEnv EnableOverProvisioning Extension.LogDir Extensions.Enabled Extensions.GoalStateHistoryCleanupPeriod
Extensions.GoalStatePeriod Extensions.InitialGoalStatePeriod Extensions.WaitForCloudInit GAUpdates.Enabled Home.Dir
HttpProxy.Host HttpProxy.Port LBProbeResponder Lib.Dir Logs.Collect Logs.CollectPeriod Logs.Console Logs.Verbose
Monitor.NetworkConfigurationChanges OS.AllowHTTP OS.CheckRdmaDriver OS.EnableFIPS OS.EnableFirewall
OS.EnableFirewallPeriod OS.EnableRDMA OS.HomeDir OS.MonitorDhcpClientRestartPeriod OS.OpensslPath OS.PasswordPath
OS.RemovePersistentNetRulesPeriod OS.RootDeviceScsiTimeout OS.RootDeviceScsiTimeoutPeriod OS.SshClientAliveInterval
OS.SshDir OS.SudoersDir OS.UpdateRdmaDriver Pid.File Provisioning.Agent Provisioning.AllowResetSysUser
Provisioning.DecodeCustomData Provisioning.DeleteRootPassword Provisioning.Enabled Provisioning.ExecuteCustomData
Provisioning.MonitorHostName Provisioning.MonitorHostNamePeriod Provisioning.PasswordCryptId
Provisioning.PasswordCryptSaltLength Provisioning.RegenerateSshHostKeyPair Provisioning.SshHostKeyPairType
Provisioning.UseCloudInit ResourceDisk.EnableSwap ResourceDisk.EnableSwapEncryption ResourceDisk.Filesystem
ResourceDisk.Format ResourceDisk.MountOptions ResourceDisk.MountPoint ResourceDisk.SwapSizeMB Role.StateConsumer
"""


def load(text: str, directory: Path) -> tuple[Options, DiskOptions]:
    """Return what a waagent.conf makes minprov do, the core and the duty of the disk."""
    file = directory / "minprov.toml"
    file.write_text("\n".join(render("waagent.conf", translate(text))) + "\n")
    return config.load(str(file))._replace(duties=()), config.load_duty("resource_disk", str(file))


def test_the_file_of_debians_package(tmp_path: Path) -> None:
    """What it says is in force, the rest as by default; each of its keys is in a comment."""
    text = DEBIAN.read_text()
    options, disk = load(text, tmp_path)
    assert options == Options(root_password=Policy.REQUIRED, host_keys=HostKeys.ANEW)
    assert (disk.resource_disk, disk.mount_point, disk.file_system) == (
        Policy.BEST_EFFORT,
        "/mnt/resource",
        FileSystem.EXT4,
    )
    assert (disk.swap, disk.timeouts, disk.timeout_scsi) == (Policy.OFF, Policy.BEST_EFFORT, 300.0)
    written = (tmp_path / "minprov.toml").read_text()
    for key in re.findall(r"^([A-Z][\w.]+)=", text, re.MULTILINE):
        assert re.search(rf"^# .*line [0-9]+, {re.escape(key)}=", written, re.MULTILINE), key


def test_everything_switched_on(tmp_path: Path) -> None:
    """Each translated key has its effect."""
    options, disk = load(
        "Provisioning.Agent=auto\nProvisioning.ExecuteCustomData=y\nProvisioning.AllowResetSysUser=Y\n"
        "Provisioning.PasswordCryptId=5\nLogs.Verbose=y\nLogs.Console=n\nResourceDisk.Format=y\n"
        'ResourceDisk.Filesystem=xfs\nResourceDisk.MountPoint="/mnt/ä" # where\nResourceDisk.MountOptions=noatime\n'
        "ResourceDisk.EnableSwap=y\nResourceDisk.SwapSizeMB=2048\nOS.RootDeviceScsiTimeout=100\n",
        tmp_path,
    )
    assert options == Options(
        other_provisioners=config.OnOtherProvisioner.PREPARE,
        custom_data_execute=config.Execute.BEFORE_READY,
        allow_system_account=True,
        password_method=PasswordMethod.SHA256,
        log_level="debug",
        console="",
    )
    assert (disk.file_system, disk.mount_point, disk.mount_options) == (FileSystem.XFS, "/mnt/ä", "noatime")
    assert (disk.swap, disk.swap_size, disk.timeout_scsi) == (Policy.BEST_EFFORT, "2048MiB", 100.0)


def test_a_disk_that_is_not_mounted_has_no_settings(tmp_path: Path) -> None:
    """ResourceDisk.Format=n mounts nothing, whatever else is set, and makes no swap."""
    _, disk = load(
        "ResourceDisk.Format=n\nResourceDisk.Filesystem=ext3\nResourceDisk.EnableSwap=y\nResourceDisk.SwapSizeMB=9\n",
        tmp_path,
    )
    assert (disk.resource_disk, disk.swap) == (Policy.OFF, Policy.OFF)


@pytest.mark.parametrize("key", KEYS.split())
def test_every_key_is_known(key: str) -> None:
    """No key of a shipped file is taken for a mistake."""
    (translation,) = translate(f"{key}=y")
    assert "no such key" not in translation.note


@pytest.mark.parametrize(
    "line",
    [
        *("Provisioning.MonitorHostName=y", "Extensions.Enabled=y", "HttpProxy.Host=10.0.0.1", "OS.EnableFirewall=Y"),
        *("Provisioning.SshHostKeyPairType=dsa", "Provisioning.PasswordCryptId=2a", "Provisioning.PasswordCryptId=1"),
        *("ResourceDisk.Format=y\nResourceDisk.Filesystem=ext3", "Provisionig.MonitorHostName=y"),
        *(
            "ResourceDisk.Format=y\nResourceDisk.MountPoint=mnt",
            "OS.RootDeviceScsiTimeout=soon",
            "Role.StateConsumer=x",
        ),
    ],
)
def test_what_is_switched_on_and_lost(line: str) -> None:
    """It is told as lost; switched off, or without a value, nothing is."""
    *_, last = translate(line)
    assert last.lost
    assert not last.settings
    *_, off = translate(line.rpartition("=")[0] + "=None")
    assert not off.lost


def test_a_key_that_does_not_exist() -> None:
    """The nearest one is named."""
    (translation,) = translate("Provisioning.ExecuteCustomDate=y")
    assert "nearest is Provisioning.ExecuteCustomData" in translation.note


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from([*TRANSLATED, *NOT_NEEDED, *REFUSED]) | st.text(),
        st.sampled_from(["y", "n", "None", "ext4", "/mnt", "/\x7f", '/"\\', "5", "\ud7ff", "0"]) | st.text(),
    )
)
def test_whatever_the_file_says(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, str]) -> None:
    """The result is a configuration that minprov reads."""
    text = "\n".join(f"{key}={value}" for key, value in entries.items())
    load(text, tmp_path_factory.mktemp("any"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "minprov", "import-waagent-conf", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command(tmp_path: Path) -> None:
    """The configuration is on stdout; what is lost is on stderr, and in the exit status."""
    done = run(str(DEBIAN))
    assert done.returncode == 1
    assert "[resource-disk]" in done.stdout
    assert re.search(r"^minprov: lost: line 7, Extensions\.Enabled=y: ", done.stderr, re.MULTILINE)
    harmless = tmp_path / "waagent.conf"
    harmless.write_text("Provisioning.DeleteRootPassword=y\n")
    done = run(str(harmless))
    assert (done.returncode, done.stderr) == (0, "")


def test_no_file(tmp_path: Path) -> None:
    """What cannot be read is a reason, and no traceback."""
    for path in (tmp_path / "none", tmp_path):
        done = run(str(path))
        assert done.returncode == 78
        assert done.stderr.startswith("minprov: invalid configuration: ")
