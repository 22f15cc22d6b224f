"""Run make targets that take too long for CI, and write what came of each into docs/results.md.

`make record TARGETS="test-vm-all crash-all"` runs this. A target that fails is recorded too: what failed is a result.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parent.parent / "docs/results.md"
_ROW = re.compile(r"^\| `make (?P<target>[^`]+)` \|")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_DESCRIBE = ("/usr/bin/env", "git", "describe", "--always", "--dirty")


class Result(NamedTuple):
    """What one target came to, at a commit."""

    target: str
    day: str
    commit: str
    seconds: float
    closing_line: str

    def row(self) -> str:
        """Return the row of the table."""
        line = self.closing_line.replace("|", "\\|")
        return f"| `make {self.target}` | {self.day} | {self.commit} | {self.seconds:.0f} | {line} |"


def with_result(document: str, result: Result) -> str:
    """Return the document with the row of a target replaced or, where it has none, appended to its table."""
    lines = document.splitlines()
    rows = [number for number, line in enumerate(lines) if line.startswith("|")]
    for number in rows:
        match = _ROW.match(lines[number])
        if match and match["target"] == result.target:
            lines[number] = result.row()
            break
    else:
        lines.insert(rows[-1] + 1, result.row())
    return "\n".join(lines) + "\n"


def closing_line(output: str, status: int) -> str:
    """Return the last line that says something, and the status of a target that failed."""
    dressed = [line for line in _COLOUR.sub("", output).splitlines() if not line.startswith("make: ")]
    lines = list(filter(None, (line.strip("= ") for line in dressed)))
    last = lines[-1] if lines else "printed nothing"
    return last if status == 0 else f"failed with status {status}: {last}"


def run(target: str) -> Result:
    """Run a target, show what it prints, and return its result."""
    commit = subprocess.run(_DESCRIBE, check=True, capture_output=True, text=True).stdout.strip()
    started = time.monotonic()
    printed: list[str] = []
    command = ["/usr/bin/env", "make", "--no-print-directory", *target.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            sys.stdout.write(line)
            sys.stdout.flush()
            printed.append(line)
    line = closing_line("".join(printed), process.returncode)
    return Result(target, f"{datetime.now(UTC):%Y-%m-%d}", commit, time.monotonic() - started, line)


def main(*targets: str) -> int:
    """Run the targets, one after another, and record each when it ends."""
    for target in targets:
        result = run(target)
        RESULTS.write_text(with_result(RESULTS.read_text(encoding="utf-8"), result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
