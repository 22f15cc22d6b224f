"""Named tuples and enumerations that take a fifth of what the standard library's take to define.

A first boot defines some seventy. For each, `typing.NamedTuple` makes the class twice and compiles a function, and
`enum.Enum` prepares for flags, mixed types and names that are written late. To a type checker these are the standard
library's; at run time they are what the program uses of those, which tests/test_definitions.py compares.
"""

from __future__ import annotations

from collections import _tuplegetter  # type: ignore[attr-defined]  # what namedtuple() has for a field
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from enum import Enum as Enum
    from typing import NamedTuple as NamedTuple
else:
    _new_tuple = tuple.__new__
    _ABSENT = object()

    class _Record(tuple):
        __slots__ = ()

        def __new__(cls, *values: object, **named: object) -> _Record:
            if named or len(values) != len(cls._fields):
                values = _complete(cls, values, named)
            return _new_tuple(cls, values)

        def _replace(self, **named: object) -> _Record:
            return type(self)(**self._asdict() | named)

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            values = ", ".join([f"{name}={value!r}" for name, value in self._asdict().items()])
            return f"{type(self).__name__}({values})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

    def _complete(record: type[_Record], values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """Return the values of all fields; raises TypeError as a function does."""
        fields, given = record._fields, len(values)
        values = *values, *map(named.pop, fields[given:], record._defaults[given:])
        if named or len(values) > len(fields) or _ABSENT in values:
            raise TypeError(
                f"{record.__name__} has the fields {', '.join(fields)}: too few, too many or others are given"
            )
        return values

    class _RecordType(type):
        """Makes a class of the annotations that it finds; the class is not of this type."""

        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            fields = tuple(namespace.get("__annotations__", ()))
            namespace |= {
                "__slots__": (),
                "__match_args__": fields,
                "_fields": fields,
                "_field_defaults": {field: namespace[field] for field in fields if field in namespace},
                "_defaults": tuple([namespace.get(field, _ABSENT) for field in fields]),
            }
            namespace |= {field: _tuplegetter(index, None) for index, field in enumerate(fields)}
            return type(name, (_Record, *bases[1:]), namespace)

    NamedTuple = type.__new__(_RecordType, "NamedTuple", (), {})

    class _EnumType(type):
        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            values = {
                word: value
                for word, value in namespace.items()
                if not (word.startswith("_") or hasattr(value, "__get__"))
            }
            for word in values:
                del namespace[word]
            enum = super().__new__(cls, name, bases, namespace)
            enum._members = {}
            enum.__members__ = {}
            for word, value in values.items():
                if (member := enum._members.get(value)) is None:
                    enum._members[value] = member = object.__new__(enum)
                    member.name = word
                    member.value = value
                    if "__init__" in namespace:
                        member.__init__(*value)
                enum.__members__[word] = member
                setattr(enum, word, member)
            return enum

        def __call__(cls, value: object) -> Enum:
            with suppress(TypeError):  # it cannot be hashed
                if value in cls._members:
                    return cls._members[value]
            if (member := cls._missing_(value)) is None:
                raise ValueError(f"{value!r} is not a valid {cls.__name__}")
            return member

        def __iter__(cls) -> Iterator[Enum]:
            return iter(cls._members.values())

        def __len__(cls) -> int:
            return len(cls._members)

        def __contains__(cls, member: object) -> bool:
            return isinstance(member, cls)

        def __getitem__(cls, name: str) -> Enum:
            return cls.__members__[name]

    class Enum(metaclass=_EnumType):
        """A class with a member for each name that it gives a value."""

        @classmethod
        def _missing_(cls, _value: object) -> Enum | None:
            return None

        def __repr__(self) -> str:
            return f"<{self}: {self.value!r}>"

        def __str__(self) -> str:
            return f"{type(self).__name__}.{self.name}"

        def __reduce__(self) -> tuple[type, tuple[Any]]:
            return type(self), (self.value,)
