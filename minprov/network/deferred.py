"""Import a library without the modules that it imports in turn and that nobody is going to use."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.util import LazyLoader
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


@contextmanager
def deferred(*names: str) -> Iterator[None]:
    """While entered, have modules of these names load once something looks into them, which may be never.

    Before Python 3.12 two threads must not be the first to look into one of them at the same time.
    """
    finder = _Finder(frozenset(names))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder:
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._names:
            return None
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, specs), None)
        if spec and spec.loader:
            spec.loader = LazyLoader(spec.loader)
        return spec
