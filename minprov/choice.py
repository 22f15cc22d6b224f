"""Choose among what the sources say: every precedence rule between media, IMDS and configuration lives here.

Pure. A complete ovf-env is authoritative; IMDS fills what it lacks and stands in for it where there is no media. A
value that cannot be used is a fault of its property, for which no other source stands in: nobody asked for its value.
Of SSH keys the good ones are used and the others named.
"""

from collections.abc import Iterator
from typing import TypeVar

from minprov.actions import Policy
from minprov.config import Options
from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError
from minprov.formats.ssh_keys import normalise_keys
from minprov.model import Chosen, Evidence, Faults, InstanceMetadata, OvfEnv, Properties, SshPublicKey

T = TypeVar("T")

ABSENT = OvfEnv()


class Choice(NamedTuple):
    """The properties as chosen, what is wrong with those that cannot be used, and what was passed over."""

    properties: Properties
    faults: Faults
    notes: tuple[str, ...]


class Keys(NamedTuple):
    """The keys of a source as lines of authorized_keys, and what is wrong with the others."""

    usable: tuple[str, ...]
    faults: tuple[ProvisioningError, ...]


def needs_user(options: Options) -> bool:
    """Tell whether anything that must hold is about the administrator."""
    return Policy.REQUIRED in (options.user, options.password, options.ssh_keys, options.sudo)


def is_complete(ovf: OvfEnv, options: Options) -> bool:
    """Tell whether the media alone is enough, so that nothing has to wait for IMDS."""
    if options.hostname is Policy.REQUIRED and ovf.hostname is None and "hostname" not in ovf.faults:
        return False
    if not needs_user(options) or "username" in ovf.faults:
        return True
    return ovf.username is not None and _has_credentials(ovf)


def has_all(evidence: Evidence, options: Options) -> bool:
    """Tell whether IMDS has nothing to add to what the media says, so that at the end nothing waits for it."""
    ovf = evidence.ovf
    if ovf is None or not is_complete(ovf, options):
        return evidence.instance is not None
    login = options.sshd is Policy.OFF or ovf.disable_ssh_password_authentication is not None
    custom_data = ovf.custom_data if evidence.custom_data_bin is None else evidence.custom_data_bin
    return login and (options.custom_data is Policy.OFF or custom_data is not None)


def wants_certificates(ovf: OvfEnv, options: Options) -> bool:
    """Tell whether the media has no more of a key than its certificate's thumbprint, and certificates are fetched."""
    return options.ssh_keys is not Policy.OFF and not names_values(ovf) and _fetches_certificates(options)


def names_values(ovf: OvfEnv) -> bool:
    """Tell whether the media has every key itself: it may have a certificate's thumbprint, and IMDS then the value."""
    return all(key.value is not None for key in ovf.ssh_public_keys)


def asks_nothing(evidence: Evidence) -> bool:
    """Tell whether the VM was created without any wish: no disc, and IMDS has an empty profile."""
    return evidence.no_disc and evidence.instance is not None and evidence.instance.asks_nothing


def choose(evidence: Evidence, options: Options) -> Choice:
    """Choose each property's value."""
    ovf, instance = evidence.ovf or ABSENT, evidence.instance or InstanceMetadata()
    faults = Faults()

    def first(name: str, media: T | None, imds: T | None = None) -> Chosen[T] | None:
        for source, value, found in (("media", media, ovf.faults), ("imds", imds, instance.faults)):
            if name in found:
                faults[name] = found[name]
                return None
            if value is not None:
                return Chosen(value, source)
        return None

    custom_data = first("custom_data", evidence.custom_data_bin if ovf.custom_data is None else ovf.custom_data)
    keys, source, notes = _choose_keys(ovf, instance, options)
    notes += (*ovf.passed_over, *instance.passed_over)
    if keys.usable or options.ssh_keys is Policy.OFF:
        notes += tuple(f"passed over: {fault}" for fault in keys.faults)
    elif keys.faults:
        faults["ssh_public_keys"] = keys.faults[0]
        notes += tuple(f"passed over: {fault}" for fault in keys.faults[1:])
    properties = Properties(
        hostname=first("hostname", ovf.hostname, instance.computer_name),
        username=first("username", ovf.username, instance.admin_username),
        password=first("password", ovf.password),
        ssh_public_keys=Chosen(keys.usable, source) if keys.usable else None,
        disable_ssh_password_authentication=first(
            "disable_ssh_password_authentication",
            ovf.disable_ssh_password_authentication,
            instance.disable_password_authentication,
        ),
        custom_data=custom_data,
        user_data=None if custom_data or "custom_data" in faults else first("user_data", None, instance.user_data),
        shell=Chosen(options.shell, "config"),
        groups=Chosen(options.groups, "config"),
    )
    return Choice(properties, faults, notes)


def find_differences(evidence: Evidence) -> tuple[str, ...] | None:
    """Return where media and IMDS differ, or None without one of them."""
    ovf, instance = evidence.ovf, evidence.instance
    if not ovf or not instance:
        return None
    return tuple(_differences(ovf, instance))


def _differences(ovf: OvfEnv, instance: InstanceMetadata) -> Iterator[str]:
    pairs: tuple[tuple[str, object, object], ...] = (
        ("hostname", ovf.hostname, instance.computer_name),
        ("username", ovf.username, instance.admin_username),
        (
            "disable_ssh_password_authentication",
            ovf.disable_ssh_password_authentication,
            instance.disable_password_authentication,
        ),
    )
    for name, media, imds in pairs:
        if media is not None and imds is not None and media != imds:
            yield f"{name}: media has {media}, IMDS has {imds}"
    if names_values(ovf):
        here, there = (_read_keys(source.ssh_public_keys).usable for source in (ovf, instance))
        if more := len({key.split(" ")[1] for key in there} - {key.split(" ")[1] for key in here}):
            yield f"ssh_public_keys: IMDS has {more} that the media does not have"


def _has_credentials(ovf: OvfEnv) -> bool:
    """Tell whether the media has a way to log in, and every key that it speaks of."""
    if not names_values(ovf):
        return False
    return ovf.password is not None or bool(_read_keys(ovf.ssh_public_keys).usable)


def _fetches_certificates(options: Options) -> bool:
    return any(duty.table == "certificates" for duty in options.duties)


def _choose_keys(ovf: OvfEnv, instance: InstanceMetadata, options: Options) -> tuple[Keys, str, tuple[str, ...]]:
    if options.ssh_keys is Policy.OFF:
        return Keys((), ()), "media", ()
    media = _read_keys(ovf.ssh_public_keys, ovf.faults)
    complete = ovf.hostname is not None and ovf.username is not None and _has_credentials(ovf)
    if instance.ssh_public_keys and not complete and not (media.usable and names_values(ovf)):
        imds = _read_keys(instance.ssh_public_keys, instance.faults)
        usable = tuple(dict.fromkeys((*imds.usable, *media.usable)))
        return Keys(usable, (*media.faults, *imds.faults)), "imds", ()
    nameless = [key.fingerprint for key in ovf.ssh_public_keys if key.value is None]
    hint = "" if _fetches_certificates(options) else "; with certificates.policy, WireServer would be asked"
    notes = tuple(f"passed over: no source has the key with the fingerprint {name}{hint}" for name in nameless)
    faults = media.faults
    if not ovf.ssh_public_keys and not complete and "ssh_public_keys" in instance.faults:
        faults = (*faults, instance.faults["ssh_public_keys"])
    return Keys(media.usable, faults), "media", notes


def _read_keys(keys: tuple[SshPublicKey, ...], structure: Faults | None = None) -> Keys:
    usable: dict[str, None] = {}
    faults: list[ProvisioningError] = []
    for index, key in enumerate(keys):
        if key.value is not None:
            where = f"key {index} for {key.path}" if key.path else f"key {index}"
            usable.update(dict.fromkeys(normalise_keys(key.value, where, faults=faults)))
    if structure and "ssh_public_keys" in structure:
        faults.append(structure["ssh_public_keys"])
    return Keys(tuple(usable), tuple(faults))
