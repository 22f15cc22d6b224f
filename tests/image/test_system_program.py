"""The system's own sshd judges its configuration, if it may be run: in its tree, and with nothing left of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from minprov.image.checks.outcome import run_checks
from minprov.image.findings import Finding
from minprov.image.subject import Purpose, Subject
from minprov.image.tree import Tree
from tests.image.recorded import make_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(not shutil.which("sshd"), reason="needs sshd")]
SSHD = "/usr/sbin/sshd"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_tree("debian", tmp_path)
    (tmp_path / "dev").mkdir(exist_ok=True)
    with (tmp_path / "etc/passwd").open("a") as passwd:
        passwd.write("sshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n")
    needed = subprocess.run(["ldd", SSHD], check=True, capture_output=True, text=True).stdout
    for path in (SSHD, *re.findall(r"(/\S+) \(", needed)):
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return tmp_path


def found(tree: Path, *, run_tools: bool = True) -> list[Finding]:
    outcome = run_checks(Subject(Tree(str(tree)), purpose=Purpose(run_tools=run_tools)))
    return [finding for finding in outcome.findings if finding.id == "sshd"]


def test_a_configuration_that_sshd_takes_is_no_finding(tree: Path) -> None:
    before = os.listdir(tree / "dev")
    assert found(tree) == []
    assert os.listdir(tree / "dev") == before


def test_a_line_that_sshd_refuses_is_told(tree: Path) -> None:
    (tree / "etc/ssh/sshd_config.d/50-own.conf").write_text("Port 22\nAllowRootLogin no\n")
    assert found(tree, run_tools=False) == []
    [finding] = found(tree)
    assert (finding.severity.value, finding.file) == ("fails", "/etc/ssh/sshd_config.d/50-own.conf")
    assert finding.line == 2
    assert finding.what.endswith("Bad configuration option: AllowRootLogin")


def test_a_program_of_another_processor_is_unknown(tree: Path) -> None:
    program = tree / SSHD.lstrip("/")
    contents = program.read_bytes()
    program.write_bytes(contents[:18] + b"\xf7\0" + contents[20:])  # BPF, for which no processor is
    [finding] = found(tree)
    assert finding.severity.value == "unknown"
    assert "failed to run command" in finding.what


def test_a_user_is_told_that_root_alone_runs_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [finding.severity.value for finding in found(tree)] == ["unknown"]
