"""What the HTTP client's libraries import and nobody uses stays unloaded, and is there for whoever does use it."""

from __future__ import annotations

import json
import re
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

import attr
import pytest

from minprov.deferred import classes_deferred, deferred, patterns_deferred, without
from minprov.emulator.platform import Emulator
from minprov.network.transport import UNUSED
from tests.whole_run import WholeRun, ended, on

# The program; when it exits it tells which modules it has imported.
TELLING = """
import json, os, sys
end = os._exit
def tell(status):
    sys.stderr.write(json.dumps(list(sys.modules)))
    sys.stderr.flush()
    end(status)
os._exit = tell
from minprov.__main__ import main
main()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that can be imported, and leaves a file behind where it was run."""
    (tmp_path / "seldom_used.py").write_text(
        "open(__file__ + '.ran', 'x').close()\n"
        "answer = 42\n"
        "class Base: words = {1: 'one'}\n"
        "class Derived(Base): pass\n"
        "def double(number): return 2 * number\n"
    )
    (tmp_path / "library.py").write_text(
        "import seldom_used, seldom_used as again\n"
        "from seldom_used import Base, Derived, answer, double\n"
        "words = Base.words\n"
        "def annotated(one: Base | None, many: list[Base], some: Base[int]) -> None | Base: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "seldom_used", raising=False)
    monkeypatch.delitem(sys.modules, "library", raising=False)
    return "seldom_used"


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Return the file that the module leaves behind."""
    return tmp_path / "seldom_used.py.ran"


def test_a_module_is_run_when_something_of_it_is_used(module: str, ran: Path) -> None:
    with deferred(module):
        library = __import__("library")
    assert not isinstance(42, library.Base)
    assert module not in sys.modules
    assert not ran.exists()
    assert library.double(21) == 42
    assert ran.exists()


def test_what_it_stands_for_is_the_real_thing(module: str) -> None:
    with deferred(module):
        library = __import__("library")
    real = __import__(module)
    assert library.seldom_used.answer == library.again.answer == real.answer
    assert library.seldom_used.Base is real.Base
    assert isinstance(real.Derived(), library.Base)
    assert isinstance(library.Derived(), real.Base)
    assert library.answer.real == 42
    assert library.words[1] == "one"
    with pytest.raises(AttributeError, match="seldom_used"):
        print(library.seldom_used.missing)


def test_what_is_used_at_once_is_run_at_once(module: str) -> None:
    with deferred(module):
        library = __import__("library")
        new = types.new_class("New", (library.Derived,))
        assert sys.modules[module].answer == 42
    assert issubclass(new, __import__(module).Base)


def test_another_thread_gets_the_real_one_meanwhile(module: str) -> None:
    with deferred(module), ThreadPoolExecutor(1) as pool:
        stand_in = __import__(module)
        assert pool.submit(lambda: stand_in.answer).result() == 42
        assert pool.submit(lambda: __import__(module).answer).result() == 42


def test_others_are_run_at_once_and_so_is_that_one_later_on(module: str, ran: Path) -> None:
    finders = list(sys.meta_path)
    with deferred("something_else", module):
        assert __import__("email.policy").policy.__name__ == "email.policy"
    assert sys.meta_path == finders
    __import__(module)
    assert ran.exists()


def test_a_submodule_is_taken_from_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import xml

    monkeypatch.delitem(sys.modules, "xml.sax", raising=False)
    monkeypatch.delattr(xml, "sax", raising=False)
    with deferred("xml.sax"):
        __import__("xml.sax")
        assert hasattr(xml, "sax")
    assert not hasattr(xml, "sax")
    assert __import__("xml.sax").sax.SAXException


def test_a_package_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package/__init__.py").write_text("from . import part\nimport is_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="is_not_installed"), deferred("broken_package.part"):
        __import__("broken_package")


def test_a_module_can_be_hidden(module: str) -> None:
    with without(module, "json"):
        assert __import__("json") is json
        with pytest.raises(ModuleNotFoundError):
            __import__(module)
    assert __import__(module).answer == 42


def test_a_pattern_is_compiled_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    compile_now = re.compile

    def compile_and_tell(pattern: str, flags: int = 0) -> re.Pattern[str]:
        compiled.append(pattern)
        return compile_now(pattern, flags)

    monkeypatch.setattr(re, "compile", compile_and_tell)
    with patterns_deferred(), ThreadPoolExecutor(1) as pool:
        unused, used = re.compile("["), re.compile("(A)B", re.IGNORECASE)
        assert compiled == []
        assert used.fullmatch("ab")
        assert used.fullmatch("AB")
        assert used.groups == 1
        assert pool.submit(lambda: isinstance(re.compile("x"), re.Pattern)).result()
    assert re.compile is compile_and_tell
    assert set(compiled) == {"(A)B", "x"}
    with pytest.raises(re.error):
        print(unused.groups)


def test_a_class_is_written_when_it_is_used() -> None:
    write_now = attr.s
    with classes_deferred(), ThreadPoolExecutor(1) as pool:

        @attr.s(auto_attribs=True, frozen=True, slots=True)
        class Point:
            x: int
            y: int = 2

        names = {"__annotations__": {"x": int, "y": int}, "x": 1}
        wrong = attr.s(auto_attribs=True)(type("Wrong", (), names))  # a default before a field that has none
        assert pool.submit(lambda: isinstance(attr.s(auto_attribs=True)(type("Point", (), {})), type)).result()
    assert attr.s is write_now
    assert [Optional[Point], Point | None]  # noqa: UP045  # as libraries have it
    assert not isinstance((1, 2), Point)
    point = Point(1)
    assert (point.x, point.y) == (1, 2)
    assert isinstance(point, Point)

    class Place(Point):
        name = "here"

    assert (Place(3).x, Place(3).name) == (3, "here")
    with pytest.raises(ValueError, match="mandatory"):
        wrong()


def test_a_module_that_is_not_there_is_missed_when_it_is_used() -> None:
    with deferred("not_there_at_all"):
        stand_in = __import__("not_there_at_all")
    with pytest.raises(ModuleNotFoundError):
        print(stand_in.answer)


@pytest.mark.root
def test_a_run_looks_into_none_of_them(tmp_path: Path) -> None:
    whole = WholeRun(tmp_path)

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, code=TELLING))
        assert run.status == 0, run.stderr
        loaded = json.loads(run.stderr.splitlines()[-1])
        assert "aiohttp.client" in loaded
        others = {"_hashlib", "asyncio.sslproto", "pickle", "ssl", "tempfile", "uvloop"}
        # The configuration file has it: tomllib knows dates.
        assert (others | {*UNUSED} - {"datetime"}) & {*loaded} == set()

    on(Emulator(), test)
