"""What can be configured, where it is read from, and what is in force.

`Options` holds the defaults and types, `SETTINGS` the TOML keys and their meaning: the parser, the error messages and
the reference in docs/configuration.md are all made from these two. Files are read in order, flags come last.
"""

import os
from enum import Enum
from typing import Any, NamedTuple, cast

from minprov.actions import Policy
from minprov.errors import ProvisioningError, Reason

CONFIG_FILE = "/etc/minprov/minprov.toml"
MAX_CONFIG_SIZE = 1 << 20


class OnMissing(Enum):
    """What to do when the platform says that something exists and no source has it."""

    WARN = "warn"
    FAIL = "fail"


class OnOtherProvisioner(Enum):
    """What to do when cloud-init or waagent is enabled too."""

    REFUSE = "refuse"
    IGNORE = "ignore"


class AskPassword(Enum):
    """When sudo asks the user for a password."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Loop(Enum):
    """Which event loop runs the program."""

    AUTO = "auto"
    UVLOOP = "uvloop"
    ASYNCIO = "asyncio"


class Options(NamedTuple):
    """Every setting, with its default in force until a file or a flag says otherwise."""

    timeout: float = 600.0
    loop: Loop = Loop.AUTO
    log_level: str = "info"
    state_dir: str = "/var/lib/minprov"
    other_provisioners: OnOtherProvisioner = OnOtherProvisioner.REFUSE
    media: tuple[str, ...] = ()
    media_wait: float = 5.0
    imds_limit: float = 300.0
    imds_url: str = "http://169.254.169.254"
    wireserver_url: str = "http://168.63.129.16"
    hostname: Policy = Policy.REQUIRED
    hostname_publish: Policy = Policy.BEST_EFFORT
    user: Policy = Policy.REQUIRED
    shell: str = "/bin/bash"
    groups: tuple[str, ...] = ("adm", "sudo", "wheel")
    allow_system_account: bool = False
    password: Policy = Policy.REQUIRED
    ssh_keys: Policy = Policy.REQUIRED
    host_keys: Policy = Policy.REQUIRED
    sshd: Policy = Policy.REQUIRED
    sshd_drop_in: str = "/etc/ssh/sshd_config.d/50-minprov.conf"
    sudo: Policy = Policy.REQUIRED
    sudo_file: str = "/etc/sudoers.d/90-minprov"
    sudo_ask_password: AskPassword = AskPassword.AUTO
    custom_data: Policy = Policy.REQUIRED
    custom_data_execute: bool = False
    custom_data_missing: OnMissing = OnMissing.WARN
    ovf_env: Policy = Policy.REQUIRED
    eject: Policy = Policy.BEST_EFFORT
    console: str = "/dev/console"
    kvp_pool: str = "/var/lib/hyperv/.kvp_pool_1"


class Setting(NamedTuple):
    """The field of `Options` that a TOML key sets, what it means, and whether it is for a step after Ready."""

    field: str
    help: str
    after_ready: bool = False


SETTINGS = {
    "timeout": Setting("timeout", "Seconds for the whole run, from start to the accepted report."),
    "loop": Setting("loop", "The event loop; `auto` is uvloop where it is installed."),
    "log-level": Setting("log_level", "Least severe message to log: debug, info, warning or error."),
    "state-dir": Setting("state_dir", "Where the report, markers and stored documents are kept."),
    "other-provisioners": Setting("other_provisioners", "What to do when cloud-init or waagent is enabled as well."),
    "sources.media": Setting(
        "media", "Devices, image files, directories or ovf-env.xml files to try; none: discover the drive."
    ),
    "sources.media-wait": Setting(
        "media_wait", "Seconds to wait for a drive that the kernel finds late, counted from IMDS's answer."
    ),
    "sources.imds-limit": Setting(
        "imds_limit", "Seconds to wait for IMDS where something is lacking without it; Microsoft advises 300."
    ),
    "sources.imds-url": Setting("imds_url", "Base URL of the metadata service."),
    "sources.wireserver-url": Setting("wireserver_url", "Base URL of WireServer."),
    "hostname.policy": Setting("hostname", "Set the hostname."),
    "hostname.publish": Setting(
        "hostname_publish",
        "Have a DHCP client that started before the hostname was set send it again, after Ready.",
        after_ready=True,
    ),
    "user.policy": Setting("user", "Create or adopt the administrator's account."),
    "user.shell": Setting("shell", "Login shell of a new account; /bin/sh where it does not exist."),
    "user.groups": Setting("groups", "Supplementary groups; those the image does not have are passed over."),
    "user.allow-system-account": Setting(
        "allow_system_account", "Accept an existing account whose uid is below UID_MIN."
    ),
    "password.policy": Setting("password", "Set the password when the platform delivers one."),
    "ssh-keys.policy": Setting("ssh_keys", "Write the user's authorized_keys."),
    "host-keys.policy": Setting("host_keys", "Generate SSH host keys when the image has none."),
    "sshd.policy": Setting("sshd", "Turn SSH password login on or off as the platform says."),
    "sshd.drop-in": Setting("sshd_drop_in", "The file that does it, written only if needed."),
    "sudo.policy": Setting("sudo", "Let the user become root with sudo."),
    "sudo.file": Setting("sudo_file", "The sudoers file that does it."),
    "sudo.ask-password": Setting(
        "sudo_ask_password", "Whether sudo asks for a password; `auto`: when the user has one."
    ),
    "custom-data.policy": Setting("custom_data", "Store customData, byte for byte."),
    "custom-data.execute": Setting(
        "custom_data_execute", "Run customData once when it starts with `#!`, before Ready is reported."
    ),
    "custom-data.missing": Setting(
        "custom_data_missing", "When IMDS says that there is customData and no media delivers it."
    ),
    "ovf-env.policy": Setting("ovf_env", "Keep the ovf-env, its password redacted."),
    "eject.policy": Setting("eject", "Eject the provisioning media, after Ready.", after_ready=True),
    "report.console": Setting("console", "Where the outcome is written as one line; an empty string: nowhere."),
    "report.kvp-pool": Setting("kvp_pool", "Hyper-V's guest-to-host pool; used where the file exists."),
}


def choices_of(setting: Setting) -> list[Enum]:
    """Return what a setting of an enumeration may be: a step after Ready cannot be required."""
    kinds = type(Options._field_defaults[setting.field])
    return [member for member in kinds if not (setting.after_ready and member is Policy.REQUIRED)]


def load(path: str | None = None, **flags: object) -> Options:
    """Return the options in force: defaults, then the files, then `flags`.

    `path` replaces the default file and must exist then; ``PATH.d/*.toml`` is read after it, in order of name.
    Raises `ProvisioningError` with `Reason.CONFIG_INVALID`.
    """
    options = Options()
    for file in _files(path):
        options = options._replace(**_read(file))
    options = options._replace(**cast("dict[str, Any]", flags))
    for key in ("sources.imds-url", "sources.wireserver-url"):
        url = getattr(options, SETTINGS[key].field)
        if not url.startswith("http://") or not url.removeprefix("http://").strip("/"):
            raise ProvisioningError(Reason.CONFIG_INVALID, key=key, value=url, detail="expected http://HOST[:PORT]")
    return options


def _files(path: str | None) -> list[str]:
    main = path or CONFIG_FILE
    found = [main] if path or os.path.exists(main) else []
    directory = main + ".d"
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    return found + [os.path.join(directory, name) for name in names if name.endswith(".toml")]


def _read(file: str) -> dict[str, Any]:
    import tomllib  # costs more than the rest of a run without configuration files

    try:
        with open(file, "rb") as stream:
            document = tomllib.loads(stream.read(MAX_CONFIG_SIZE).decode())
    except OSError as error:
        raise ProvisioningError(Reason.CONFIG_INVALID, file=file, detail=error.strerror) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProvisioningError(Reason.CONFIG_INVALID, file=file, detail=error) from error
    return {_setting(file, key).field: _convert(file, key, value) for key, value in _flatten(document)}


def _flatten(document: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in document.items():
        pairs += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return pairs


def _setting(file: str, key: str) -> Setting:
    if key in SETTINGS:
        return SETTINGS[key]
    from difflib import get_close_matches  # only on the way out

    nearest = get_close_matches(key, SETTINGS, n=1, cutoff=0)
    raise ProvisioningError(Reason.CONFIG_INVALID, file=file, key=key, detail="unknown key", nearest=nearest[0])


def _convert(file: str, key: str, value: object) -> object:
    default = Options._field_defaults[SETTINGS[key].field]
    expected: str
    if isinstance(default, Enum):
        kinds = type(default)
        choices = [member.value for member in choices_of(SETTINGS[key])]
        if value in choices:
            return kinds(value)
        expected = "one of " + ", ".join(choices)
        if value == Policy.REQUIRED.value and kinds is Policy:
            expected += ", since it comes after Ready, which it could not forbid"
    elif isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        expected = "a list of strings"
    elif isinstance(default, bool):
        if isinstance(value, bool):
            return value
        expected = "true or false"
    elif isinstance(default, float):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
            return float(value)
        expected = "a positive number of seconds"
    else:
        if isinstance(value, str):
            return value
        expected = "a string"
    raise ProvisioningError(Reason.CONFIG_INVALID, file=file, key=key, detail=f"expected {expected}")
