"""The file systems of a disk image, mounted by the kernel where the system on it has them.

The root file system is found by what is in it, the others by its fstab. Why one was not mounted is noted, and is for a
check to tell.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.formats.fstab import parse_fstab
from minprov.formats.partitions import TYPE_NAMES
from minprov.formats.superblocks import LAYERS
from minprov.image.esp import copy_esp
from minprov.image.mounts import KINDS, Mounts
from minprov.machine.paths import resolve_beneath

if TYPE_CHECKING:
    from minprov.image.disk_file import DiskFile
    from minprov.image.model import Volume

MAX_FSTAB = 1 << 16
MAX_SUBVOLUMES = 64
ESP_TARGETS = ("/boot/efi", "/efi", "/boot")
"""Where systems mount the EFI system partition, if their fstab does not say so (systemd-gpt-auto-generator(8))."""


class MountedDisk:
    """A plain disk with its volumes, which are mounted until it is closed; `root` is the system's root directory."""

    def __init__(self, disk: DiskFile, volumes: tuple[Volume, ...], work: str) -> None:
        """Mount them below the directory `work`.

        Raises:
            ProvisioningError: IMAGE_UNREADABLE if none has a system on it.

        """
        self._disk = disk
        self._work = work
        self.volumes = list(volumes)
        self.root = f"{work}/root"
        self._mounts = Mounts()
        try:
            self._mount_root()
            self._mount_others()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take everything away."""
        self._mounts.close()

    def _mount_root(self) -> None:
        """Mount the first file system that has a system on it; the ones typed as root come first."""
        candidates = [index for index, volume in enumerate(self.volumes) if _kind(volume) in KINDS.keys() - {"vfat"}]
        for index in sorted(candidates, key=lambda index: "root" not in _type_name(self.volumes[index])):
            try:
                options = self._root_options(index)
            except ProvisioningError as error:
                self._note(index, unread=error.data.get("detail"))
                continue
            if options is not None:
                self._mount(index, self.root, options)
                self._note(index, target="/")
                self._enter_deployment()
                return
        raise ProvisioningError(Reason.IMAGE_UNREADABLE, image=self._disk.path, detail=self._what_there_is())

    def _root_options(self, index: int) -> tuple[str, ...] | None:
        """Return the options with which a volume shows a system; None if it has none."""
        self._mount(index, self.root)
        try:
            if _has_system(self.root):
                return ()
        finally:
            self._mounts.unmount(self.root)
        if _kind(self.volumes[index]) != "btrfs":
            return None
        self._mount(index, self.root, ("subvolid=5",))
        try:
            with os.scandir(self.root) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            for name in names[:MAX_SUBVOLUMES]:
                if _has_system(f"{self.root}/{name}"):
                    return (f"subvol={name}",)
        except OSError as error:
            raise ProvisioningError(Reason.IMAGE_UNREADABLE, detail=error.strerror) from error
        finally:
            self._mounts.unmount(self.root)
        return None

    def _enter_deployment(self) -> None:
        """Go into the newest deployment of an ostree, which is the running system's root (ostree-prepare-root(1))."""
        with suppress(OSError):
            systems = resolve_beneath(self.root, "/ostree/deploy")
            for name in sorted(os.listdir(systems)):
                deployments = resolve_beneath(self.root, f"/ostree/deploy/{name}/deploy")
                found = [f"{deployments}/{entry}" for entry in os.listdir(deployments)]
                found = [path for path in found if os.path.isdir(path) and not os.path.islink(path)]
                if found:
                    root = max(found, key=os.path.getmtime)
                    for shared, place in ((f"/ostree/deploy/{name}/var", "/var"), ("/boot", "/boot")):
                        self._mounts.bind(resolve_beneath(self.root, shared), resolve_beneath(root, place))
                    self.root = root
                    return

    def _mount_others(self) -> None:
        lines = parse_fstab(_read_text(self.root, "/etc/fstab"))
        for line in sorted(lines, key=lambda line: line.target.count("/")):
            if line.target.startswith("/") and line.target != "/":
                named = (number for number, volume in enumerate(self.volumes) if volume.answers_to(line.spec))
                index = next(named, None)
                if index is not None:
                    options = [word for word in line.options if word.startswith(("subvol=", "subvolid="))]
                    self._mount_at(index, line.target, options)
        for index, volume in enumerate(self.volumes):
            if volume.partition.is_esp and volume.target is None and volume.unread is None:
                target = next((target for target in ESP_TARGETS if _is_empty(self.root, target)), None)
                if target:
                    self._mount_at(index, target)
                else:
                    self._note(index, unread=f"the system has no empty {' or '.join(ESP_TARGETS)} to show it at")
            elif volume.target is None and volume.unread is None:
                kind = _kind(volume)
                self._note(index, unread=f"{kind} is not read here" if kind in LAYERS else None)

    def _mount_at(self, index: int, target: str, options: list[str] | None = None) -> None:
        volume = self.volumes[index]
        kind = _kind(volume)
        try:
            directory = resolve_beneath(self.root, target)
            os.listdir(directory)
        except OSError as error:
            self._note(index, unread=f"its place, {target}, is no directory that can be read: {error.strerror}")
            return
        try:
            if kind in KINDS:
                self._mount(index, directory, tuple(options or ()))
            else:
                self._note(index, unread=f"{kind or 'what it holds'} is not read here")
                return
        except ProvisioningError as error:
            if kind != "vfat":
                self._note(index, unread=error.data.get("detail"))
                return
            try:
                copy = tempfile.mkdtemp(dir=self._work)
                copy_esp(self._disk.path, volume.partition.start, copy)
                self._mounts.bind(copy, directory)
            except ProvisioningError as unreadable:
                self._note(index, unread=unreadable.data.get("detail"))
                return
        self._note(index, target=target)

    def _mount(self, index: int, directory: str, options: tuple[str, ...] = ()) -> None:
        volume = self.volumes[index]
        place = (volume.partition.start, volume.partition.size)
        self._mounts.mount(self._disk.path, place, _kind(volume), directory, options)

    def _note(self, index: int, *, target: str | None = None, unread: str | None = None) -> None:
        old = self.volumes[index]
        self.volumes[index] = old._replace(target=target or old.target, unread=unread or old.unread)

    def _what_there_is(self) -> str:
        """Say of each volume why it is not the root file system."""
        words = [
            f"{f'partition {part.number}' if part.number else 'the disk'}: "
            + (f"{contents.kind}{f', {unread}' if unread else ''}" if contents else "nothing known")
            for part, contents, _, unread in self.volumes
        ]
        return f"no file system with a system on it was found ({'; '.join(words) or 'no partitions'})"


def _kind(volume: Volume) -> str:
    return volume.contents.kind if volume.contents else ""


def _type_name(volume: Volume) -> str:
    return TYPE_NAMES.get(volume.partition.type, "")


def _has_system(directory: str) -> bool:
    """Tell whether a directory is a root directory: it has /etc and programs, or ostree's deployments."""

    def there(name: str) -> bool:
        return os.path.lexists(f"{directory}/{name}")

    return (there("etc") and (there("usr") or there("bin"))) or there("ostree/deploy")


def _is_empty(root: str, target: str) -> bool:
    try:
        return not os.listdir(resolve_beneath(root, target))
    except OSError:
        return False


def _read_text(root: str, path: str) -> str:
    """Return a text file of the tree, up to a limit; nothing if there is none."""
    try:
        descriptor = os.open(resolve_beneath(root, path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return file.read(MAX_FSTAB).decode(errors="replace")
