#!/usr/bin/python3 -IS
"""Run minprov from the directory that this file is in, wherever that is.

-I and -S keep the environment and site-packages out: the modules are those of lib/. For the versions of Python that the
directory was built for, their bytecode is in one file besides: a first boot reads from a cold disk, where looking for
some hundred files takes longer than all the rest. Another version compiles lib/ each time.
"""

import sys
from _frozen_importlib import ModuleSpec  # importlib.machinery has it too, and is one more file to look for
from marshal import loads
from os.path import realpath
from posix import O_RDONLY, close, open, pread

LIBRARY = realpath(__file__).rpartition("/")[0] + "/lib"


class Archive:
    """Finds and loads the modules of an archive; archive.py has the format."""

    def __init__(self, path: str) -> None:
        self._path = path
        length = int.from_bytes(self._read(8, 0))
        self._index = loads(self._read(length, 8))
        self._start = 8 + length

    def _read(self, length: int, offset: int) -> bytes:
        # No descriptor is kept: a child process, which closes all it knows nothing of, imports modules as well.
        descriptor = open(self._path, O_RDONLY)
        contents = pread(descriptor, length, offset)
        close(descriptor)
        return contents

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in self._index:
            return None
        spec = ModuleSpec(name, self, is_package=self._index[name][2])
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(f"{LIBRARY}/{name.replace('.', '/')}")  # for extension modules
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        pass

    def exec_module(self, module: object) -> None:
        offset, length, _ = self._index[module.__name__]
        exec(loads(self._read(length, self._start + offset)), module.__dict__)


sys.path.append(LIBRARY)
try:
    archive = Archive(f"{LIBRARY}/{sys.implementation.cache_tag}.modules")
except FileNotFoundError:
    pass
else:
    sys.meta_path.insert(2, archive)  # before the search in directories

from minprov.__main__ import main

main()
