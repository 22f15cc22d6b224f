"""What a system starts by itself: units of systemd; scripts of OpenRC, sysvinit, runit and busybox."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from minprov.machine.provisioners import OPENRC_RUNLEVELS, RUNIT_SERVICES, UNIT_DIRECTORIES

if TYPE_CHECKING:
    from minprov.image.tree import Tree

SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
SYSV = ("/etc/rc?.d", "/etc/rc.d/rc?.d")
SCRIPTS = ("/etc/inittab", "/etc/init.d/rcS", "/etc/rc.local", "/etc/init.d/S*", "/etc/rc", "/etc/rc.d/rc.*")
"""Scripts that start programs themselves, on small systems."""
_STARTED_BY_LEVEL = re.compile(r"S[0-9]{2}(.+)")
_STARTING_LEVELS = "2345S"


class Services:
    """What is enabled, by name."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    @cached_property
    def systemd(self) -> bool:
        """Tell whether systemd is installed, which then starts the system."""
        return any(self._tree.is_file(path) for path in SYSTEMD)

    def starts(self, *names: str) -> str | None:
        """Return what has one of the services started: a link, or a line of a script; None if nothing does.

        A name is that of a unit, without ``.service``, or of a script.
        """
        for name in names:
            units = [name] if "." in name else [f"{name}.service", f"{name}.socket"]
            for unit in units:
                if unit in self._wanted and not self.is_masked(unit):
                    return self._wanted[unit]
            if name in self._scripts and not (self.systemd and self.unit(f"{name}.service")):
                return self._scripts[name]
        return None

    def runs_program(self, program: str) -> str | None:
        """Return the first script that names a program; only systems without systemd are looked at."""
        if self.systemd:
            return None
        word = re.compile(rf"(?<![\w-]){re.escape(program)}(?![\w-])")
        for path in self._tree.glob(*SCRIPTS):
            for number, line in self._tree.lines(path):
                if word.search(line):
                    return f"{path}:{number}"
        return None

    def unit(self, name: str) -> str | None:
        """Return the file of a unit, the one that counts; None if there is none."""
        found = (f"{directory}/{name}" for directory in UNIT_DIRECTORIES if not directory.startswith("/run"))
        return next((path for path in found if self._tree.exists(path) or self._tree.link(path)), None)

    def is_masked(self, unit: str) -> bool:
        """Tell whether a unit is switched off for good."""
        path = self.unit(unit)
        if path is None:
            return False
        found = self._tree.stat(path) if self._tree.link(path) is None else None
        return self._tree.link(path) == "/dev/null" or (found is not None and found.st_size == 0)

    @cached_property
    def _wanted(self) -> dict[str, str]:
        """Return the units that another one starts, and the link that says so."""
        found: dict[str, str] = {}
        for directory in UNIT_DIRECTORIES:
            for name in self._tree.names(directory):
                if name.endswith((".wants", ".requires", ".upholds")):
                    for unit in self._tree.names(f"{directory}/{name}"):
                        found.setdefault(unit, f"{directory}/{name}/{unit}")
        return found

    @cached_property
    def _scripts(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for directory in (*RUNIT_SERVICES, *self._tree.glob(f"{OPENRC_RUNLEVELS}/*")):
            for name in self._tree.names(directory):
                found.setdefault(name, f"{directory}/{name}")
        for directory in self._tree.glob(*SYSV):
            if directory.removesuffix(".d")[-1] in _STARTING_LEVELS:
                for name in self._tree.names(directory):
                    if match := _STARTED_BY_LEVEL.fullmatch(name):
                        found.setdefault(match[1], f"{directory}/{name}")
        for path in self._tree.glob("/etc/init.d/S*"):
            if match := _STARTED_BY_LEVEL.fullmatch(path.rpartition("/")[2]):
                found.setdefault(match[1].removesuffix(".sh"), path)
        return found
