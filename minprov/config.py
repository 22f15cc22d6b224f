"""What can be configured, where it is read from, and what is in force.

`Options` holds the defaults and types, `SETTINGS` the TOML keys and their meaning: the parser, the error messages and
the reference in docs/configuration.md are all made from these two. Files are read in order, flags come last.

A duty, a program beside the first boot, has tables of its own in the same files and a `Schema` of them, which is asked
only where a file has one of its tables. To add a duty: name its tables in `DUTIES`, and put its `SCHEMA` into
``minprov/duties/NAME/settings.py``.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from minprov.actions import Policy
from minprov.definitions import Enum, NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.limits import MAX_SECONDS, MIN_SECONDS, RUN_LIMIT

CONFIG_FILE = "/etc/minprov/minprov.toml"
MAX_CONFIG_SIZE = 1 << 20
MAX_DEPTH = 4  # of tables; no key has as many


class OnMissing(Enum):
    """What to do when the platform says that something exists and no source has it."""

    WARN = "warn"
    FAIL = "fail"


class OnFailure(Enum):
    """What the failure of something that was asked for means."""

    FAIL = "fail"
    WARN = "warn"


class Execute(Enum):
    """When customData that is a program runs; `true` is an older word for before Ready."""

    NEVER = False
    BEFORE_READY = "before-ready"
    AFTER_READY = "after-ready"

    @classmethod
    def _missing_(cls, value: object) -> "Execute | None":
        return cls.BEFORE_READY if value is True else None


class OnOtherProvisioner(Enum):
    """What to do when another provisioning agent is enabled too."""

    REFUSE = "refuse"
    PREPARE = "prepare"
    IGNORE = "ignore"


class HostKeys(Enum):
    """What a failure to have host keys means, and whether those of the image are good enough."""

    REQUIRED = "required"
    BEST_EFFORT = "best-effort"
    OFF = "off"
    ANEW = "anew"


class OnPool(Enum):
    """What to do when the VM is one of a pool and gets its owner later."""

    REFUSE = "refuse"
    WAIT = "wait"


class HostsFile(Enum):
    """What becomes of the image's own line in /etc/hosts."""

    AUTO = "auto"
    OFF = "off"


class AskPassword(Enum):
    """When sudo asks the user for a password."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class PasswordMethod(Enum):
    """With which method of crypt(5) the password is kept."""

    SHA512 = "sha512"
    SHA256 = "sha256"
    YESCRYPT = "yescrypt"


class Loop(Enum):
    """Which event loop runs the program."""

    AUTO = "auto"
    UVLOOP = "uvloop"
    ASYNCIO = "asyncio"


class Duty(NamedTuple):
    """A duty's table whose policy is not off, and what runs it: its program, with systemd by a unit of its own."""

    table: str
    policy: Policy
    program: str
    unit: str


class Options(NamedTuple):
    """Every setting, with its default in force until a file or a flag says otherwise."""

    timeout: float = RUN_LIMIT
    loop: Loop = Loop.AUTO
    log_level: str = "info"
    state_dir: str = "/var/lib/minprov"
    other_provisioners: OnOtherProvisioner = OnOtherProvisioner.REFUSE
    tools_path: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    media_wait: float = 5.0
    imds_limit: float = 300.0
    imds_url: str = "http://169.254.169.254"
    wireserver_url: str = "http://168.63.129.16"
    hostname: Policy = Policy.REQUIRED
    hostname_publish: Policy = Policy.BEST_EFFORT
    hosts_file: HostsFile = HostsFile.AUTO
    user: Policy = Policy.REQUIRED
    shell: str = "/bin/bash"
    groups: tuple[str, ...] = ("adm", "sudo", "wheel")
    allow_system_account: bool = False
    allow_directory_account: bool = False
    password: Policy = Policy.REQUIRED
    password_method: PasswordMethod = PasswordMethod.SHA512
    ssh_keys: Policy = Policy.REQUIRED
    host_keys: HostKeys = HostKeys.REQUIRED
    host_keys_console: bool = False
    sshd: Policy = Policy.REQUIRED
    sshd_drop_in: str = "/etc/ssh/sshd_config.d/50-minprov.conf"
    sudo: Policy = Policy.REQUIRED
    sudo_file: str = "/etc/sudoers.d/90-minprov"
    sudo_ask_password: AskPassword = AskPassword.AUTO
    root_password: Policy = Policy.OFF
    custom_data: Policy = Policy.REQUIRED
    custom_data_execute: Execute = Execute.NEVER
    custom_data_time_limit: float = 3600.0
    custom_data_failure: OnFailure = OnFailure.FAIL
    custom_data_missing: OnMissing = OnMissing.WARN
    ovf_env: Policy = Policy.REQUIRED
    eject: Policy = Policy.BEST_EFFORT
    console: str = "/dev/console"
    kvp_pool: str = "/var/lib/hyperv/.kvp_pool_1"
    check_ignore: tuple[str, ...] = ()
    duties: tuple[Duty, ...] = ()
    """No setting: the duties that the files switch on by tables of their own."""
    preprovisioning: OnPool = OnPool.REFUSE
    """The setting of a duty, by which a first boot knows that it may wait."""
    hooks: str = ""
    """The setting of a duty, by which a first boot knows where programs of the image's are to be run from."""
    hooks_flags: tuple[str, ...] = ()
    """No setting: with which their program reads the same files."""
    left_pool: bool = False
    """No setting: whether the ovf-env is that of a VM that waited in a pool and has got its owner."""


class Setting(NamedTuple):
    """The field of the options that a TOML key sets, and what it means.

    A string may have a pattern, and words for it; a policy may be that of a step after Ready.
    """

    field: str
    help: str
    pattern: str = r"(?s:.*)"
    expected: str = "a string"
    after_ready: bool = False


class Schema(NamedTuple):
    """The settings of one program: a named tuple with all defaults, and the TOML keys that set its fields."""

    options: Any
    settings: Mapping[str, Setting]
    unit: str = ""
    """What runs a duty before Ready with systemd, where the sandbox of minprov.service is too narrow for it."""

    def default(self, setting: Setting) -> object:
        """Return what is in force until a file says otherwise."""
        return self.options._field_defaults[setting.field]


SETTINGS = {
    "timeout": Setting("timeout", "Seconds for the whole run, from start to the accepted report."),
    "loop": Setting("loop", "The event loop; `auto` is asyncio's own, which starts sooner."),
    "log-level": Setting("log_level", "Least severe message to log: debug, info, warning or error."),
    "state-dir": Setting("state_dir", "Where the report, markers and stored documents are kept."),
    "other-provisioners": Setting(
        "other_provisioners",
        "What to do when another provisioning agent is enabled as well; `prepare`: have waagent, which stays for "
        "extensions, find the VM provisioned, and refuse any other.",
    ),
    "tools.path": Setting(
        "tools_path", "Directories to look for system tools in, behind the usual ones and before those of PATH."
    ),
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
    "hostname.hosts-file": Setting(
        "hosts_file", "`auto`: where /etc/hosts has the image's old name for a loopback address, it gets the new one."
    ),
    "user.policy": Setting("user", "Create or adopt the administrator's account."),
    "user.shell": Setting("shell", "Login shell of a new account; /bin/sh where it does not exist."),
    "user.groups": Setting("groups", "Supplementary groups; those the image does not have are passed over."),
    "user.allow-system-account": Setting(
        "allow_system_account", "Accept an existing account whose uid is below UID_MIN."
    ),
    "user.allow-directory-account": Setting(
        "allow_directory_account", "Adopt an account that only a directory service has; its password stays there."
    ),
    "password.policy": Setting("password", "Set the password when the platform delivers one."),
    "password.method": Setting(
        "password_method",
        "With which method of crypt(5) it is kept; `yescrypt` is computed by the system's libcrypt.",
    ),
    "ssh-keys.policy": Setting("ssh_keys", "Write the user's authorized_keys."),
    "host-keys.policy": Setting(
        "host_keys",
        "Generate SSH host keys when the image has none; `anew`: required, and in the place of the image's.",
    ),
    "host-keys.console": Setting(
        "host_keys_console", "Write the fingerprints of the host keys to `report.console`, before the outcome."
    ),
    "sshd.policy": Setting("sshd", "Turn SSH password login on or off as the platform says."),
    "sshd.drop-in": Setting("sshd_drop_in", "The file that does it, written only if needed."),
    "sudo.policy": Setting("sudo", "Let the user become root with sudo."),
    "sudo.file": Setting("sudo_file", "The sudoers file that does it."),
    "sudo.ask-password": Setting(
        "sudo_ask_password", "Whether sudo asks for a password; `auto`: when the user has one."
    ),
    "root-password.policy": Setting(
        "root_password", "Lock root's password, once the user can log in and become root; keys of root's stay."
    ),
    "custom-data.policy": Setting("custom_data", "Store customData, byte for byte."),
    "custom-data.execute": Setting(
        "custom_data_execute",
        "When to run customData that starts with `#!`, once for each VM, in a unit of its own.",
    ),
    "custom-data.time-limit": Setting(
        "custom_data_time_limit", "Seconds for it; before Ready, the run's own deadline counts as well."
    ),
    "custom-data.failure": Setting("custom_data_failure", "What it means before Ready that the program fails."),
    "custom-data.missing": Setting(
        "custom_data_missing", "When IMDS says that there is customData and no media delivers it."
    ),
    "ovf-env.policy": Setting("ovf_env", "Keep the ovf-env, its password redacted."),
    "eject.policy": Setting("eject", "Eject the provisioning media, after Ready.", after_ready=True),
    "report.console": Setting("console", "Where the outcome is written as one line; an empty string: nowhere."),
    "report.kvp-pool": Setting("kvp_pool", "Hyper-V's guest-to-host pool; used where the file exists."),
    "check.ignore": Setting("check_ignore", "Checks that `minprov check` leaves out of this system; a run has none."),
}

CORE = Schema(Options, SETTINGS)

DUTIES = {
    "certificates": "certificates",
    "disk-timeouts": "resource_disk",
    "dns-check": "follow_up",
    "resource-disk": "resource_disk",
    "role-properties": "follow_up",
    "swap": "resource_disk",
}
"""The tables of duties, each with the folder in `duties` that it is for. Each of them has a policy."""
POOL_DUTY = "wait_in_pool"
HOOKS_DUTY = "hooks"
STAGES = BEFORE_READY, AFTER_READY, FAILED = "before-ready", "after-ready", "failed"
"""The moments of a run for which there are hooks."""
OWNERS = DUTIES | {"preprovisioning": POOL_DUTY, HOOKS_DUTY: HOOKS_DUTY}
"""Whose a key is, by its first word. The duty of a pooled VM has one key and no table, and hooks have no policy."""


def choices_of(setting: Setting, default: Enum) -> list[Enum]:
    """Return what a setting of an enumeration may be: a step after Ready cannot be required."""
    return [member for member in type(default) if not (setting.after_ready and member is Policy.REQUIRED)]


def load(path: str | None = None, **flags: object) -> Options:
    """Return the options in force: defaults, then the files, then `flags`.

    `path` replaces the default file; ``PATH.d/*.toml`` is read after it, in order of name. One of them must exist then.
    Raises `ProvisioningError` with `Reason.CONFIG_INVALID`.
    """
    values = _read_files(path)
    own = {**values.pop(None, {}), **values.pop(POOL_DUTY, {}), **flags}
    if directory := values.pop(HOOKS_DUTY, {}).get("directory"):
        own |= {"hooks": directory, "hooks_flags": ("--config", path) if path else ()}
    options = Options(**own, duties=tuple(_switched_on(values)))
    for key in ("sources.imds-url", "sources.wireserver-url"):
        url = getattr(options, SETTINGS[key].field)
        if not url.startswith("http://") or not url.removeprefix("http://").strip("/"):
            raise ProvisioningError(Reason.CONFIG_INVALID, key=key, value=url, detail="expected http://HOST[:PORT]")
    if options.root_password is not Policy.OFF and options.sudo is Policy.OFF:
        detail = "sudo.policy is off: nobody but root could become root"
        raise ProvisioningError(Reason.CONFIG_INVALID, key="root-password.policy", detail=detail)
    return options


def load_duty(duty: str, path: str | None = None) -> Any:  # noqa: ANN401  # the duty knows its options
    """Return the options in force of a duty, as `load` does those of the first boot."""
    values = _read_files(path).get(duty, {})
    return schema_of(duty).options(**values)


def _switched_on(values: Mapping[str | None, dict[str, Any]]) -> Iterator[Duty]:
    for table, duty in DUTIES.items():
        if duty in values:
            schema = schema_of(duty)
            policy = schema.options(**values[duty])._asdict()[schema.settings[f"{table}.policy"].field]
            if policy is not Policy.OFF:
                yield Duty(table, policy, duty.replace("_", "-"), schema.unit)


def schema_of(duty: str | None) -> Schema:
    """Return the settings of a duty, or of the first boot.

    Raises:
        ProvisioningError: CONFIG_INVALID, where the duty is not installed.

    """
    if duty is None:
        return CORE
    from importlib import import_module  # a first boot without its tables knows nothing of a duty

    try:
        schema: Schema = import_module(f"minprov.duties.{duty}.settings").SCHEMA
    except ModuleNotFoundError as error:
        raise ProvisioningError(
            Reason.CONFIG_INVALID, duty=duty, detail="this installation has no minprov-duties"
        ) from error
    return schema


def _files(path: str | None) -> list[str]:
    main = path or CONFIG_FILE
    directory = main + ".d"
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".toml"))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        raise ProvisioningError(Reason.CONFIG_INVALID, file=directory, detail=error.strerror) from error
    is_read = os.path.lexists(main) or (path and not names)
    return [main] * bool(is_read) + [os.path.join(directory, name) for name in names]


def _read_files(path: str | None) -> dict[str | None, dict[str, Any]]:
    """Return what the files set, field by field: for each duty, and with None for the first boot."""
    values: dict[str | None, dict[str, Any]] = {}
    for file in _files(path):
        for key, value in _flatten(_parse(file)):
            duty = OWNERS.get(key.partition(".")[0])
            schema = schema_of(duty)
            setting = _setting(file, key, schema)
            values.setdefault(duty, {})[setting.field] = _convert(file, key, setting, schema.default(setting), value)
    return values


def _parse(file: str) -> dict[str, Any]:
    import tomllib  # costs more than the rest of a run without configuration files

    try:
        return tomllib.loads(_read(file).decode())
    except OSError as error:
        raise ProvisioningError(Reason.CONFIG_INVALID, file=file, detail=error.strerror) from error
    except RecursionError as error:
        raise ProvisioningError(Reason.CONFIG_INVALID, file=file, detail="nested too deeply") from error
    except ValueError as error:  # no TOML, no UTF-8, or a number of thousands of digits
        raise ProvisioningError(Reason.CONFIG_INVALID, file=file, detail=error) from error


def _read(file: str) -> bytes:
    # A FIFO, opened so, has no writer to wait for.
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ProvisioningError(Reason.CONFIG_INVALID, file=file, detail="not a regular file")
        contents = stream.read(MAX_CONFIG_SIZE + 1)
    if len(contents) > MAX_CONFIG_SIZE:
        raise ProvisioningError(Reason.CONFIG_INVALID, file=file, detail=f"larger than {MAX_CONFIG_SIZE} bytes")
    return contents


def _flatten(document: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in document.items():
        deeper = isinstance(value, dict) and prefix.count(".") < MAX_DEPTH
        pairs += _flatten(value, f"{prefix}{key}.") if deeper else [(prefix + key, value)]
    return pairs


def _setting(file: str, key: str, schema: Schema) -> Setting:
    if key in schema.settings:
        return schema.settings[key]
    from difflib import get_close_matches  # only on the way out

    known = [*schema.settings, "preprovisioning", "hooks.directory", *(f"{table}.policy" for table in DUTIES)]
    nearest = get_close_matches(key, known, n=1, cutoff=0)
    raise ProvisioningError(Reason.CONFIG_INVALID, file=file, key=key, detail="unknown key", nearest=nearest[0])


def _convert(file: str, key: str, setting: Setting, default: object, value: object) -> object:
    expected: str
    if isinstance(default, Enum):
        kinds = type(default)
        choices = choices_of(setting, default)
        with suppress(ValueError):
            if (member := kinds(value)) in choices:
                return member
        expected = "one of " + ", ".join(str(choice.value).lower() for choice in choices)
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
    elif isinstance(default, int):
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 15:
            return value
        expected = "a whole number from 0 to 32767"
    elif isinstance(default, float):
        if isinstance(value, int | float) and not isinstance(value, bool) and MIN_SECONDS <= value <= MAX_SECONDS:
            return float(value)
        expected = f"seconds from {MIN_SECONDS:g} to {MAX_SECONDS:g}"
    else:
        import re

        if isinstance(value, str) and re.fullmatch(setting.pattern, value):
            return value
        expected = setting.expected
    raise ProvisioningError(Reason.CONFIG_INVALID, file=file, key=key, detail=f"expected {expected}")
