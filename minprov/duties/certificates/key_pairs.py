"""Key pairs that the ovf-env names by a certificate's thumbprint (``SSH/KeyPairs``): put below the user's home.

The elements' names are those of waagent's ovfenv.py. Its `deploy_ssh_keypair` (common/osutil/default.py) writes a
private key that all can read and that is root's; here both files are the user's, the private one for the user alone.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping

from minprov.definitions import NamedTuple
from minprov.duties.certificates.contents import Contents, ssh_keys_of
from minprov.errors import ProvisioningError, Reason, excerpt
from minprov.formats.accounts import Account
from minprov.formats.thumbprint import normalise_thumbprint
from minprov.formats.xml_document import parse_document
from minprov.machine.blocking import in_thread, look
from minprov.machine.files import file_error, read_file, replace_file, sync
from minprov.machine.manifest import digest
from minprov.machine.system import System
from minprov.ovf import AZURE_NAMESPACE
from minprov.properties.name_service import find_user
from minprov.properties.user_directories import opened_below_home

logger = logging.getLogger(__name__)

OVF_ENV = "ovf-env.xml"
NOTHING = f'<Environment xmlns="{AZURE_NAMESPACE}"/>'.encode()
LONGEST = 255
"""Of a path, as far as it is shown."""
PRIVATE_MODE, PUBLIC_MODE = 0o600, 0o644


class KeyPair(NamedTuple):
    """Where the ovf-env wants the key of which certificate; either may be lacking there."""

    thumbprint: str
    path: str


class File(NamedTuple):
    """A file of a pair."""

    path: str
    contents: bytes
    mode: int

    def __repr__(self) -> str:
        return f"File({self.path!r}, ***)"


def parse_key_pairs(ovf_env: bytes) -> tuple[str | None, list[KeyPair]]:
    """Return the user's name, and the pairs that the ovf-env names.

    Raises:
        ProvisioningError: OVF_PARSE, OVF_INVALID.

    """
    root = parse_document(ovf_env, AZURE_NAMESPACE, malformed=Reason.OVF_PARSE, invalid=Reason.OVF_INVALID)
    linux = root.optional("ProvisioningSection").optional("LinuxProvisioningConfigurationSet")
    pairs = [
        KeyPair(element.optional("Fingerprint").text() or "", element.optional("Path").text() or "")
        for element in linux.optional("SSH").optional("KeyPairs").children("KeyPair")
    ]
    return linux.optional("UserName").text(), pairs


class Pairs:
    """What became of all of them."""

    def __init__(self) -> None:
        self.user: str | None = None
        self.states: dict[str, str] = {}
        """By path: planned, changed, unchanged, failed."""
        self.digests: dict[str, str] = {}
        """By path, the SHA-256 of what is this program's there."""
        self.error: ProvisioningError | None = None
        """Of the first that failed, which kept none of the others back."""


async def put_key_pairs(
    system: System, state_dir: str, contents: Contents, pem: Mapping[str, bytes], *, dry_run: bool
) -> Pairs:
    """Put each pair in its place, or say which would be.

    Raises:
        ProvisioningError: OVF_PARSE, OVF_INVALID.

    """
    pairs = Pairs()
    pairs.user, named = parse_key_pairs(system.read(f"{state_dir}/{OVF_ENV}") or NOTHING)
    for pair in named:
        try:
            account = find_user(system, pairs.user or "")
            if account is None:
                raise ProvisioningError(Reason.KEY_PAIR_REFUSED, path=excerpt(pair.path, LONGEST), detail="no account")
            files = files_of_pair(pair, contents, pem, account)
            # Both are looked at before one is written: half of a pair is of no use.
            for file, held in [(file, await holds(system, account, file)) for file in files]:
                if not held and not dry_run:
                    await write(system, account, file)
                pairs.states[file.path] = "unchanged" if held else "planned" if dry_run else "changed"
                pairs.digests[file.path] = digest(file.contents)
        except ProvisioningError as error:
            logger.warning("key pair for %s: %s", excerpt(pair.path, LONGEST), error)
            pairs.states[pair.path] = "failed"
            pairs.error = pairs.error or error
    return pairs


async def remove_key_pairs(system: System, user: str | None, digests: Mapping[str, str]) -> None:
    """Remove what a captured disk brings along of its first VM's pairs; what was changed since stays."""
    account = find_user(system, user) if user else None
    if account is None:
        return
    for path, sha256 in digests.items():
        try:
            await _remove(system, account, path, sha256)
        except ProvisioningError as error:
            logger.warning("key pair of another VM is left: %s", error)


def files_of_pair(pair: KeyPair, contents: Contents, pem: Mapping[str, bytes], account: Account) -> list[File]:
    """Return the two files, of what was delivered as `pem`.

    Raises:
        ProvisioningError: CERTIFICATE_NOT_DELIVERED, KEY_PAIR_REFUSED.

    """
    path = _path(pair, account)
    name = normalise_thumbprint(pair.thumbprint)
    if name is None:
        shown = excerpt(pair.thumbprint) or None
        detail = "this is no thumbprint" if shown else "the ovf-env names no thumbprint"
        raise ProvisioningError(Reason.CERTIFICATE_NOT_DELIVERED, thumbprint=shown, path=path, detail=detail)
    if f"{name}.crt" not in pem:
        raise ProvisioningError(Reason.CERTIFICATE_NOT_DELIVERED, thumbprint=name, path=path)
    if f"{name}.prv" not in pem:
        detail = "it came without its key"
        raise ProvisioningError(Reason.CERTIFICATE_NOT_DELIVERED, thumbprint=name, path=path, detail=detail)
    public = ssh_keys_of(contents).get(name)
    if public is None:
        raise ProvisioningError(Reason.KEY_PAIR_REFUSED, path=path, detail="ssh has no use for a key of its kind")
    return [File(path, pem[f"{name}.prv"], PRIVATE_MODE), File(f"{path}.pub", f"{public}\n".encode(), PUBLIC_MODE)]


async def holds(system: System, account: Account, file: File) -> bool:
    """Tell whether the file is in its place, as it should be.

    Raises:
        ProvisioningError: KEY_PAIR_REFUSED where another file is, HOME_REFUSED, WRITE_FAILED, FILE_SYSTEM_HANGS.

    """
    found = await look(file.path, _read, system, account, file.path)
    if found is None:
        return False
    contents, metadata = found
    if contents != file.contents:
        raise ProvisioningError(
            Reason.KEY_PAIR_REFUSED, path=excerpt(file.path, LONGEST), detail="another file is there"
        )
    return (stat.S_IMODE(metadata.st_mode), metadata.st_gid) == (file.mode, account.gid)


async def write(system: System, account: Account, file: File) -> None:
    """Put the file in its place, and read it back.

    Raises:
        ProvisioningError: as `holds`; READ_BACK.

    """
    directory, name = os.path.split(file.path)
    try:
        with opened_below_home(system, account, directory, make=True) as (opened, _):
            await replace_file(opened, name, file.contents, mode=file.mode, owner=(account.uid, account.gid))
    except OSError as error:
        raise file_error(error, file.path) from error
    await system.restore_label(directory, file.path)
    if not await holds(system, account, file):
        raise ProvisioningError(Reason.READ_BACK, property="key pair", target=file.path)


async def _remove(system: System, account: Account, path: str, sha256: str) -> None:
    found = await look(path, _read, system, account, path)
    if found is None or digest(found[0]) != sha256:
        return
    directory, name = os.path.split(path)
    try:
        with opened_below_home(system, account, directory) as (opened, _):
            os.unlink(name, dir_fd=opened)
            await in_thread(sync, ".", opened)
    except OSError as error:
        raise file_error(error, path) from error


def _read(system: System, account: Account, path: str) -> tuple[bytes, os.stat_result] | None:
    directory, name = os.path.split(path)
    try:
        with opened_below_home(system, account, directory) as (opened, _):
            contents = read_file(opened, name, owner=account.uid)
            return None if contents is None else (contents, os.stat(name, dir_fd=opened, follow_symlinks=False))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise file_error(error, path) from error


def _path(pair: KeyPair, account: Account) -> str:
    """Return the path, ``$HOME`` expanded as waagent does."""
    path = pair.path.replace("$HOME", account.home)
    detail = None
    if path != os.path.normpath(path) or not path.startswith(f"{os.path.normpath(account.home)}/"):
        detail = f"it is not below {account.home}"
    elif not path.isprintable():
        detail = "its name has control characters"
    if detail:
        raise ProvisioningError(Reason.KEY_PAIR_REFUSED, path=excerpt(path, LONGEST), detail=detail)
    return path
