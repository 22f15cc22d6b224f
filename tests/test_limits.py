"""Time limits stand in one table; one that stands elsewhere is found here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from minprov import limits
from tests.test_layers import MODULES, full_name

# Numbers that are no time limits: module, number, what it is.
NO_LIMITS = {
    ("duties.resource_disk.disk", 2): "times a limit",
    ("duties.resource_disk.swap", 0.5): "a square root",
    ("duties.resource_disk.swap", 0.9): "of a size",
    ("duties.resource_disk.swap", 1.1): "of a size",
    ("network.retry", 0.75): "jitter",
    ("network.retry", 1.6): "how delays grow",
    ("outcome.timeline", 1.0): "milliseconds: a shorter wait is not shown",
}
WAITS = {
    *("alarm", "create_connection", "pause", "poll", "select", "setitimer", "settimeout", "sleep", "timeout"),
    *("timeout_at", "wait", "wait_for"),
}
BOUNDED = {"run", "run_tool", "_apply_late"}  # they take a time as `limit`; elsewhere that may be a size
CLOCKS = {"monotonic", "time"}


def find_times(tree: ast.Module) -> set[float]:
    """Return each number of a module that may be a time: it has a fraction, or something is waited for so long."""
    constants = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def numbers(expression: ast.AST) -> set[float]:
        nodes = list(ast.walk(expression))
        nodes += [constants[node.id] for node in nodes if isinstance(node, ast.Name) and node.id in constants]
        values = [node.value for node in nodes if isinstance(node, ast.Constant)]
        return {value for value in values if isinstance(value, int | float) and value}

    constant = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    found: set[float] = {value for value in constant if isinstance(value, float) and value}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = called(node)
            times = [word.value for word in node.keywords if (word.arg or "").endswith(("timeout", "pause", "seconds"))]
            times += [word.value for word in node.keywords if word.arg == "limit" and function in BOUNDED]
            times += node.args if function in WAITS else []
            found |= set().union(*map(numbers, times))
        elif isinstance(node, ast.BinOp) and isinstance(node.left, ast.Call) and called(node.left) in CLOCKS:
            found |= numbers(node.right)
    return found


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)


def parse(path: Path) -> ast.Module:
    """Parse a module; the defaults of settings aside, which docs/limits.md has from the settings' own table."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if full_name(path).endswith(("config", "settings")):
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign):
                node.value = None
    return tree


@pytest.mark.parametrize("path", [path for path in MODULES if full_name(path) != "limits"], ids=full_name)
def test_no_time_limit_stands_outside_the_table(path: Path) -> None:
    found = {number for number in find_times(parse(path)) if (full_name(path), number) not in NO_LIMITS}
    assert not found, (
        f"{full_name(path)}: give it a name and a reason in minprov/limits.py; else NO_LIMITS says what it is"
    )


def test_what_is_no_limit_still_stands_where_it_is_said_to() -> None:
    found = {(full_name(path), number) for path in MODULES for number in find_times(parse(path))}
    assert NO_LIMITS.keys() <= found


@pytest.mark.parametrize(
    "code",
    [
        "LIMIT = 1.5",
        "LIMIT = 5\nwait_for(answer, LIMIT)",
        "async def f():\n    async with asyncio.timeout(min(left, 3)):\n        pass",
        "subprocess.run(argv, timeout=30)",
        "run_tool(argv, limit=90)",
        "deadline = time.monotonic() + 20",
        "def f(pause=sleep):\n    pause(1)",
        "def f(seconds=0.2):\n    pass",
    ],
)
def test_a_time_limit_is_found_however_it_is_given(code: str) -> None:
    assert find_times(ast.parse(code))


def test_every_limit_is_in_use() -> None:
    used = {
        alias.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "minprov.limits"
        for alias in node.names
    }
    assert used == {name for name in vars(limits) if name.isupper()}
