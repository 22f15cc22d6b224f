"""Tools are found in the usual directories first, then where the service and the configuration have them."""

from pathlib import Path

import pytest

from minprov.machine.tools import PATH, find_tool, search_path


@pytest.mark.parametrize("path", ["", ".:bin", PATH, "::"])
def test_what_is_no_absolute_directory_is_no_place_for_tools(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path)
    assert search_path() == PATH


def test_the_usual_directories_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("sh", "only-here"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    assert find_tool("sh") in ("/usr/bin/sh", "/bin/sh")
    assert find_tool("only-here") == f"{tmp_path}/only-here"
