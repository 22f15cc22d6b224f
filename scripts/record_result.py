"""Run a target that takes too long for CI, and record in docs/results.md what it came to; `make record TARGET=…`.

The figure is the output's last line that has a count in it; a target that fails is recorded as failed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "docs/results.md"
COUNT = re.compile(r"\d+ (passed|failed|cases|trials|runs|boots|machines)")


def main(target: str) -> int:
    """Run it, print what it prints, and replace its row."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True).stdout  # noqa: S607
    started, figure = time.monotonic(), ""
    with subprocess.Popen(["make", target], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:  # noqa: S607
        assert running.stdout  # noqa: S101
        for line in running.stdout:
            sys.stdout.write(line)
            if COUNT.search(line):
                figure = line.strip(" =\n").replace("|", "/")
    status = "passed" if running.returncode == 0 else "**failed**"
    seconds, date = f"{time.monotonic() - started:.0f}", time.strftime("%Y-%m-%d", time.gmtime())
    row = f"| `make {target}` | {status}: {figure} | {seconds} s | {commit.strip()} | {date} |"
    lines = RESULTS.read_text(encoding="utf-8").splitlines()
    others = [line for line in lines if not line.startswith(f"| `make {target}` |")]
    RESULTS.write_text("\n".join([*others, row, ""]), encoding="utf-8")
    return running.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
