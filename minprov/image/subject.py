"""What is checked: a tree, its disk where it is on one, and what the image is meant for; facts are read once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from minprov.config import CONFIG_FILE, Options, load
from minprov.definitions import NamedTuple
from minprov.errors import ProvisioningError, Reason
from minprov.image.boot import (
    CommandLine,
    Started,
    read_command_lines,
    read_initrds,
    read_kernels,
    read_started,
)
from minprov.image.family import Distribution, read_distribution
from minprov.image.network import Network, read_networks
from minprov.image.services import Services
from minprov.machine.tools import PATH

if TYPE_CHECKING:
    from minprov.image.initramfs import Initramfs
    from minprov.image.kernels import Kernel
    from minprov.image.model import Disk
    from minprov.image.tree import Tree

SITES = tuple(
    f"/usr/{place}"
    for place in (
        *("lib/python3/dist-packages", "lib/python3*/site-packages", "lib64/python3*/site-packages"),
        *("local/lib/python3*/dist-packages", "local/lib/python3*/site-packages"),
        "share/minprov/modules",
    )
)
"""Where Python finds packages; the last is of the RPM of minprov."""


class Purpose(NamedTuple):
    """What VMs the image is meant for, beyond the ordinary ones, and what the check may do to find out."""

    generation: int | None = None
    nvme: bool = False
    trusted_launch: bool = False
    run_tools: bool = False
    """Programs of the system may be run."""


class Subject:
    """What the checks ask."""

    def __init__(self, tree: Tree, disk: Disk | None = None, purpose: Purpose | None = None) -> None:
        self.tree = tree
        self.disk = disk
        self.purpose = purpose or Purpose()
        self._initrds: dict[str, list[tuple[str, Initramfs]] | ProvisioningError] = {}

    @cached_property
    def distribution(self) -> Distribution:
        """Return which distribution it is; without a readable os-release, of no family."""
        try:
            return read_distribution(self.tree)
        except ProvisioningError:
            return Distribution("", "a system whose os-release cannot be read", "", "other")

    @cached_property
    def started(self) -> list[Started]:
        """Return what the boot loader offers."""
        return read_started(self.tree)

    @cached_property
    def kernels(self) -> list[Kernel]:
        """Return the kernels that can be started."""
        return read_kernels(self.tree, self.started)

    @cached_property
    def command_lines(self) -> list[CommandLine]:
        """Return the command lines in use, and the next ones."""
        return read_command_lines(self.tree, self.started)

    @cached_property
    def command_lines_in_use(self) -> list[CommandLine]:
        """Return the command lines in use, each once."""
        return list({line.options: line for line in self.command_lines if not line.is_next}.values())

    def initrds(self, started: Started) -> list[tuple[str, Initramfs]]:
        """Return what an entry's kernel unpacks at its start.

        Raises:
            ProvisioningError: IMAGE_INVALID, IMAGE_UNREADABLE; again at each call, without another look.

        """
        key = started.entry.file if started.unified else "\0".join(started.initrds)
        if key not in self._initrds:
            try:
                self._initrds[key] = read_initrds(self.tree, started)
            except ProvisioningError as error:
                self._initrds[key] = error
        found = self._initrds[key]
        if isinstance(found, ProvisioningError):
            raise ProvisioningError(found.reason, **found.data) from found
        return found

    @cached_property
    def options(self) -> Options | ProvisioningError:
        """Return the system's own configuration of minprov, or what is wrong with it."""
        path = self.configuration
        try:
            return Options() if path is None else load(path)
        except ProvisioningError as error:
            return error

    @cached_property
    def configuration(self) -> str | None:
        """Return where minprov.toml is on this machine, or would be beside its drop-ins; None if there is neither.

        Raises:
            ProvisioningError: IMAGE_UNREADABLE if one of its files is a link, which may lead out of the tree.

        """
        drop_ins = self.tree.glob(f"{CONFIG_FILE}.d/*.toml")
        for path in (CONFIG_FILE, f"{CONFIG_FILE}.d", *drop_ins):
            if self.tree.link(path) is not None and not self.tree.live:
                raise ProvisioningError(Reason.IMAGE_UNREADABLE, path=path, detail="it is a link")
        if not drop_ins and not self.tree.exists(CONFIG_FILE):
            return None
        return f"{self.tree.root.rstrip('/')}{self.tree.target(CONFIG_FILE)}"

    @cached_property
    def services(self) -> Services:
        """Return what the system starts by itself."""
        return Services(self.tree)

    @cached_property
    def networks(self) -> list[Network]:
        """Return what configures NICs."""
        return read_networks(self.tree, self.services)

    @cached_property
    def starts_minprov(self) -> str | None:
        """Return what has minprov started: a link, or a line of a script; None if nothing does."""
        names = ["minprov"]
        if not self.services.is_masked("minprov.service"):
            names.append("minprov-ready.target")  # which requires it
        return self.services.starts(*names) or self.services.runs_program("minprov")

    def has_tool(self, tool: str) -> bool:
        """Tell whether a program is installed, where minprov looks for it."""
        return any(self.tree.exists(f"{directory}/{tool}") for directory in PATH.split(":"))

    @property
    def may_be_generation_2(self) -> bool:
        """Tell whether VMs of generation 2 are meant, as far as is known."""
        if self.purpose.generation:
            return self.purpose.generation == 2
        if self.disk:
            return "V2" in self.disk.layout.generations
        return any(self.tree.is_directory(f"{top}/EFI") for top in ("/boot/efi", "/efi", "/boot"))

    @property
    def may_be_generation_1(self) -> bool:
        """Tell whether VMs of generation 1 are meant, as far as is known."""
        if self.purpose.generation:
            return self.purpose.generation == 1
        return "V1" in self.disk.layout.generations if self.disk else True
