"""The changes a run can make to a machine, as data.

`plan` decides on them, `--dry-run` prints them, `apply` carries out the very same objects: so a dry run cannot drift
from the real one. Nothing here reads or changes a system.

Records are named tuples throughout the program: to define a dataclass costs most of a millisecond of every start, and
one of `minprov.definitions` a twentieth of it.
"""

from minprov.definitions import Enum, NamedTuple
from minprov.errors import Reason
from minprov.model import Secret


class Policy(Enum):
    """What a property's failure means: Ready needs every `required` one."""

    REQUIRED = "required"
    BEST_EFFORT = "best-effort"
    OFF = "off"


class Phase(Enum):
    """When a step is due. What comes after Ready cannot forbid it: such a step is never `required`."""

    BEFORE_CHANGES = "before anything is changed"
    BEFORE_READY = "before Ready"
    JUST_BEFORE_READY = "before Ready, when all else holds"
    AFTER_READY = "after Ready"


class UnusableValue(NamedTuple):
    """Stands where an action would be, had the value for it been one that can be used."""

    reason: Reason
    data: tuple[tuple[str, str], ...]


class KeepAccount(NamedTuple):
    """Make sure that the account is there and can be logged in to, since no source has a credential for it."""

    username: str


class CheckProxyAgent(NamedTuple):
    """Make sure that the guest proxy agent the VM was created with is there and ready."""


class SetHostname(NamedTuple):
    """Name the running system and every later boot of it."""

    hostname: str
    hosts_file: bool = False
    """Whether the image's own line in /etc/hosts gets the new name."""


class PublishHostname(NamedTuple):
    """Have a DHCP client that started with another name send this one, from which the platform's DNS learns it."""

    hostname: str


class EnsureUser(NamedTuple):
    """Create the account with its home directory, or adopt the one the image has."""

    username: str
    shell: str
    groups: tuple[str, ...]
    allow_system_account: bool
    allow_directory_account: bool = False
    """Whether an account that another database than the files has is adopted."""


class SetPassword(NamedTuple):
    """Give the account a password; the hash is what is stored of it."""

    username: str
    password: Secret
    password_hash: Secret


class WriteAuthorizedKeys(NamedTuple):
    """Add keys, one line each in OpenSSH's format, to those the account accepts."""

    username: str
    keys: tuple[str, ...]
    groups: tuple[str, ...] = ()
    """Groups that the account is to be in, by which sshd may judge."""
    with_password: bool = False
    """Whether a password may be used at a login as well."""


class EnsureHostKeys(NamedTuple):
    """Give a generalised image, from which they were removed, SSH host keys of its own."""

    anew: bool = False
    """Whether those that the image has are replaced, which other VMs may have, too."""


class ConfigureSshd(NamedTuple):
    """Turn SSH password login on or off, for all accounts."""

    username: str
    password_authentication: bool
    drop_in: str
    groups: tuple[str, ...] = ()
    """Groups that the account is to be in, by which sshd may judge."""
    with_keys: bool = False
    """Whether the account has keys as well."""


class GrantSudo(NamedTuple):
    """Let the account run every command as root."""

    username: str
    ask_password: bool
    path: str


class LockRootPassword(NamedTuple):
    """Have root without a password, so that root is nobody but who may use sudo, or has a key of root's."""

    administrator: str


class StoreFile(NamedTuple):
    """Keep a document in the state directory, readable by root alone; without contents, make sure none is kept."""

    path: str
    contents: bytes | None
    decoded: bytes | None = None
    """What gzip has in it, kept beside as ``.decoded``."""


class ExecuteCustomData(NamedTuple):
    """Run customData that starts with ``#!``, once, after everything else has been applied."""

    path: str
    state_dir: str
    time_limit: float
    wait: bool
    """Whether the run waits for its end."""
    hostname: str | None = None
    username: str | None = None


class RunDuty(NamedTuple):
    """Run the program of a duty that is required, and wait for its end."""

    program: str
    unit: str
    """What runs it with systemd; where there is none, this process does."""
    state_dir: str


class RunHooks(NamedTuple):
    """Run the image's own programs for this moment, each once for each VM."""

    state_dir: str
    flags: tuple[str, ...]
    """With which their program reads the same configuration."""
    vm_id: str | None = None
    report: bytes = b""
    """What the run has come to by then, as JSON; no secret is in it."""


class WaitInPool(NamedTuple):
    """Report Ready for the platform's pool, and be provisioned once the VM has got its owner."""

    kind: str
    """Such as ``Running``: what the platform does with the VM between the two."""


class PrepareWaagent(NamedTuple):
    """Leave behind what makes a waagent that stays for extensions find this VM provisioned."""

    hostname: str | None
    ovf_env: bytes | None
    disable_agent: bool


class EjectMedia(NamedTuple):
    """Give the disc back once nothing needs it any more."""

    device: str


Action = (
    UnusableValue
    | KeepAccount
    | CheckProxyAgent
    | SetHostname
    | PublishHostname
    | EnsureUser
    | SetPassword
    | WriteAuthorizedKeys
    | EnsureHostKeys
    | ConfigureSshd
    | GrantSudo
    | LockRootPassword
    | StoreFile
    | RunDuty
    | RunHooks
    | WaitInPool
    | ExecuteCustomData
    | PrepareWaagent
    | EjectMedia
)
