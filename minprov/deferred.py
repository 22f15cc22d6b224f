"""Import a library without the modules that it imports in turn and that nobody is going to use.

In their place it gets stand-ins. What it takes from one, a name or an attribute of that, stands for the real thing in
turn, which is loaded when it is called or derived from, or looked into later. `importlib.util.LazyLoader` would load a
module once a second one imports it, and whenever a name is taken from it.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec
from operator import attrgetter
from threading import get_ident
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def deferred(*names: str) -> Iterator[None]:
    """While entered, have this thread import stand-ins for the modules of these names that are not loaded yet.

    Whoever imports one of the modules afterwards gets the real one.
    """
    finder = _Finder(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        finder.withdraw()


@contextmanager
def without(*names: str) -> Iterator[None]:
    """While entered, have modules that are not loaded yet look as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]  # None: what `import` takes for that
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def patterns_deferred() -> Iterator[None]:
    """While entered, have regular expressions that this thread compiles be compiled when they are used."""
    thread, compile_now = get_ident(), re.compile

    def compile_later(pattern: Any, flags: Any = 0) -> Any:  # noqa: ANN401  # as what it stands for
        compiled = partial(compile_now, pattern, flags)
        return _Pattern(compiled) if get_ident() == thread else compiled()

    re.compile = compile_later
    try:
        yield
    finally:
        re.compile = compile_now


@contextmanager
def classes_deferred() -> Iterator[None]:
    """While entered, have classes that attrs writes for this thread be written when they are used."""
    try:
        attr = import_module("attr")  # a library's own, of which some release may do without it
    except ImportError:
        yield
        return
    thread, write_now = get_ident(), attr.s

    def write_later(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as what it stands for
        if arguments or get_ident() != thread:
            return write_now(*arguments, **options)
        return lambda cls: _Class(partial(write_now(**options), cls))

    attr.s = write_later  # type: ignore[attr-defined]
    try:
        yield
    finally:
        attr.s = write_now  # type: ignore[attr-defined]


class _Pattern:
    """A regular expression that is compiled when something of it is used."""

    def __init__(self, compiled: Callable[[], re.Pattern[Any]]) -> None:
        self._compiled = compiled

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        used = getattr(self._compiled(), name)
        setattr(self, name, used)
        return used


class _Class:
    """A class that is written when something of it is used."""

    def __init__(self, write: Callable[[], type]) -> None:
        self._write = write
        self._written: type | None = None

    def load(self) -> type:
        self._written = self._written or self._write()
        return self._written

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__"):  # only `typing` asks, for annotations
            raise AttributeError(name)
        return getattr(self.load(), name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        return self.load()(*arguments, **keywords)

    def __mro_entries__(self, _bases: tuple[object, ...]) -> tuple[type]:
        return (self.load(),)

    def __instancecheck__(self, instance: object) -> bool:
        """Nothing is an instance of a class that has never been written."""
        return self._written is not None and isinstance(instance, self._written)

    # In annotations:

    def __or__(self, _other: object) -> _Class:
        return self

    __ror__ = __or__


class _Finder:
    """Finds stand-ins; also the loader that makes them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = set(names)
        self._thread: int | None = get_ident()

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        if name not in self._names or not self.is_importing():
            return None
        return ModuleSpec(name, self)  # type: ignore[arg-type]  # a loader by its methods

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: there is no code."""

    def is_importing(self) -> bool:
        """Tell whether it is the import that asks, and not somebody who uses what was imported."""
        return get_ident() == self._thread

    def load(self, name: str) -> ModuleType:
        """Return the real module."""
        if name in self._names:
            self._withdraw(name)
        return import_module(name)

    def withdraw(self) -> None:
        """Leave the place of every stand-in to the real module."""
        self._thread = None
        for name in tuple(self._names):
            self._withdraw(name)

    def _withdraw(self, name: str) -> None:
        self._names.discard(name)
        if isinstance(module := sys.modules.get(name), _StandIn):
            del sys.modules[name]
            package, _, attribute = name.rpartition(".")
            # The package's own import may have failed meanwhile.
            if (within := sys.modules.get(package)) and vars(within).get(attribute) is module:
                delattr(within, attribute)


class _StandIn(ModuleType):
    """A module without anything in it."""

    def __init__(self, name: str, finder: _Finder) -> None:
        super().__init__(name)
        self._finder = finder

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # as a module's
        if name.startswith("__"):
            raise AttributeError(name)
        taken = _Taken(self.__name__, name, self._finder)
        return taken if self._finder.is_importing() else taken.load()


class _Taken:
    """What was taken from a stand-in: a function, a class or a constant."""

    def __init__(self, module: str, name: str, finder: _Finder) -> None:
        self._module, self._name, self._finder = module, name, finder

    def load(self) -> Any:  # noqa: ANN401  # whatever it is
        return attrgetter(self._name)(self._finder.load(self._module))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__"):  # only `typing` asks, for annotations
            raise AttributeError(name)
        taken = _Taken(self._module, f"{self._name}.{name}", self._finder)
        return taken if self._finder.is_importing() else taken.load()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        return self.load()(*arguments, **keywords)

    def __mro_entries__(self, _bases: tuple[object, ...]) -> tuple[type]:
        return (self.load(),)

    def __instancecheck__(self, instance: object) -> bool:
        """Nothing is an instance of a class that has never been loaded."""
        loaded = not isinstance(sys.modules.get(self._module), _StandIn | None)
        return loaded and isinstance(instance, self.load())

    def __getitem__(self, key: object) -> Any:  # noqa: ANN401
        return self if self._finder.is_importing() else self.load()[key]

    # In annotations:

    def __or__(self, _other: object) -> _Taken:
        return self

    __ror__ = __or__
