"""The program's own named tuples and enumerations do what the standard library's do."""

from __future__ import annotations

import copy
import enum
import typing
from types import SimpleNamespace
from typing import Any

import pytest

from minprov import definitions

CLASSES = '''
class Point(NamedTuple):
    """A place."""

    x: int
    y: int = 2
    name: str = ""

    @property
    def sum(self) -> int:
        return self.x + self.y

    @classmethod
    def origin(cls):
        return cls(0, 0)


class Nothing(NamedTuple):
    pass


class Found(NamedTuple, Generic[T]):
    value: T


class Named(Point):
    @property
    def sum(self) -> int:
        return super().sum + 1


class Colour(Enum):
    RED = "red"
    CRIMSON = "red"
    BLUE = "blue"

    @classmethod
    def _missing_(cls, value: object):
        return cls.BLUE if value == "azure" else None


class Reason(Enum):
    FULL = ("no room", 1)
    GONE = ("not there", 2)

    def __init__(self, phrase: str, status: int) -> None:
        self.phrase = phrase
        self.status = status

    @property
    def short(self) -> str:
        return self.phrase[:2]
'''


@pytest.fixture(params=["own", "standard"])
def made(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401  # the classes
    own = request.param == "own"
    names = {
        "__name__": __name__,
        "Generic": typing.Generic,
        "T": typing.TypeVar("T"),
        "NamedTuple": definitions.NamedTuple if own else typing.NamedTuple,
        "Enum": definitions.Enum if own else enum.Enum,
    }
    exec(CLASSES, names)
    return SimpleNamespace(**names)


@pytest.mark.parametrize(
    ("positional", "named", "value"),
    [
        ((1,), {}, (1, 2, "")),
        ((), {"x": 1}, (1, 2, "")),
        ((1, 3), {"name": "a"}, (1, 3, "a")),
        ((1,), {"name": "a", "y": 5}, (1, 5, "a")),
        ((1, 3, "a"), {}, (1, 3, "a")),
        ((None,), {"y": None}, (None, None, "")),
    ],
)
def test_a_record_has_what_it_is_given_and_defaults(
    made: SimpleNamespace, positional: tuple[Any, ...], named: dict[str, Any], value: tuple[Any, ...]
) -> None:
    assert made.Point(*positional, **named) == value


@pytest.mark.parametrize(
    ("positional", "named"),
    [
        ((), {}),
        ((), {"y": 1}),
        ((1, 2, "", 4), {}),
        ((1,), {"x": 1}),
        ((1,), {"z": 1}),
        ((), {"x": 1, "z": 1}),
        ((1, 2, ""), {"name": ""}),
        ((1, 2, ""), {"z": "secret"}),
    ],
)
def test_a_record_refuses_too_few_too_many_and_others(
    made: SimpleNamespace, positional: tuple[Any, ...], named: dict[str, Any]
) -> None:
    with pytest.raises(TypeError) as refused:
        made.Point(*positional, **named)
    assert "secret" not in str(refused.value)


def test_a_record_is_a_tuple_with_names(made: SimpleNamespace) -> None:
    record = made.Point(1, 3, "a")
    assert issubclass(made.Point, tuple)
    assert (made.Point.__name__, made.Point.__doc__, made.Point.__module__) == ("Point", "A place.", __name__)
    assert (made.Point._fields, made.Point._field_defaults) == (("x", "y", "name"), {"y": 2, "name": ""})
    assert (record.x, record.y, record.name, record.sum) == (1, 3, "a", 4)
    assert repr(record) == "Point(x=1, y=3, name='a')"
    assert record._asdict() == {"x": 1, "y": 3, "name": "a"}
    assert (made.Point.origin(), record._replace(y=5)) == ((0, 0, ""), (1, 5, "a"))
    for same in (record._replace(), copy.copy(record), copy.deepcopy(record)):
        assert same == record
        assert type(same) is made.Point
    assert {record: 1}[(1, 3, "a")] == 1
    match record:
        case made.Point(x, _, name=name):
            assert (x, name) == (1, "a")
        case _:
            pytest.fail("no match")
    for name in ("x", "other"):
        with pytest.raises(AttributeError):
            setattr(record, name, 2)
    with pytest.raises((TypeError, ValueError)):  # in Python 3.13 as here, and before
        record._replace(other=2)


def test_a_record_may_have_no_fields_be_generic_and_be_derived_from(made: SimpleNamespace) -> None:
    assert made.Nothing() == ()
    assert made.Found("a").value == "a"
    assert made.Found[str]("a") == ("a",)
    assert made.Named(1).sum == 4
    assert made.Named(1)._replace(x=2) == (2, 2, "")


def test_an_enumeration_has_one_member_for_each_value(made: SimpleNamespace) -> None:
    colour = made.Colour
    assert [member.name for member in colour] == ["RED", "BLUE"]
    assert len(colour) == 2
    assert list(colour.__members__) == ["RED", "CRIMSON", "BLUE"]
    assert colour.CRIMSON is colour.RED is colour("red") is colour["RED"] is colour["CRIMSON"]
    assert (colour.RED.value, colour.RED == colour.BLUE, colour.RED == "red") == ("red", False, False)
    assert {colour.RED: 1}[colour.CRIMSON] == 1
    assert colour.RED in colour
    assert isinstance(colour.RED, colour)
    assert copy.deepcopy(colour.BLUE) is colour.BLUE
    assert colour("azure") is colour.BLUE
    others: tuple[object, ...] = ("green", [])
    for other in others:
        with pytest.raises(ValueError, match="is not a valid"):
            colour(other)
    with pytest.raises(KeyError):
        colour["GREEN"]
    assert not hasattr(colour, "GREEN")


def test_a_member_may_have_more_than_a_value(made: SimpleNamespace) -> None:
    reason = made.Reason.GONE
    assert (reason.value, reason.phrase, reason.status, reason.short) == (("not there", 2), "not there", 2, "no")
    assert (f"{reason}", repr(reason)) == ("Reason.GONE", "<Reason.GONE: ('not there', 2)>")
    assert [member.short for member in made.Reason] == ["no", "no"]
