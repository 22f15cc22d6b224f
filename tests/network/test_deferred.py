"""What the HTTP client's libraries import and nobody uses stays unloaded, and is there for whoever does use it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from minprov.emulator.platform import Emulator
from minprov.network.deferred import deferred
from minprov.network.transport import UNUSED
from tests.whole_run import WholeRun, ended, on

# The program; when it exits it tells of each imported module whether that was run.
TELLING = """
import json, os, sys, types
end = os._exit
def tell(status):
    kinds = {name: type(module) is types.ModuleType for name, module in sys.modules.items()}
    sys.stderr.write(json.dumps(kinds))
    sys.stderr.flush()
    end(status)
os._exit = tell
from minprov.__main__ import main
main()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that can be imported, and leaves a file behind where it was run."""
    (tmp_path / "seldom_used.py").write_text("open(__file__ + '.ran', 'x').close()\nanswer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "seldom_used", raising=False)
    return "seldom_used"


def test_a_module_is_run_when_something_looks_into_it(module: str, tmp_path: Path) -> None:
    ran = tmp_path / "seldom_used.py.ran"
    with deferred(module):
        imported = __import__(module)
    assert not ran.exists()
    assert imported.answer == 42
    assert ran.exists()


def test_others_are_run_at_once_and_so_is_that_one_later_on(module: str, tmp_path: Path) -> None:
    finders = list(sys.meta_path)
    with deferred("something_else"):
        pass
    assert sys.meta_path == finders
    __import__(module)
    assert (tmp_path / "seldom_used.py.ran").exists()


def test_a_module_that_is_not_there_is_missed_as_ever() -> None:
    with deferred("not_there_at_all"), pytest.raises(ModuleNotFoundError):
        __import__("not_there_at_all")


@pytest.mark.root
def test_a_run_looks_into_none_of_them(tmp_path: Path) -> None:
    whole = WholeRun(tmp_path)

    async def test(platform: Emulator) -> None:
        run = await ended(await whole.start(platform, code=TELLING))
        assert run.status == 0, run.stderr
        loaded = json.loads(run.stderr.splitlines()[-1])
        assert not loaded["attr.validators"]
        assert [name for name in UNUSED if loaded.get(name)] == []

    on(Emulator(), test)
