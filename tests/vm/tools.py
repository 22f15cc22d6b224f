"""Run a tool that makes a part of an image."""

from __future__ import annotations

import subprocess
from pathlib import Path


def run(*argv: str | Path, stdin: str = "", cwd: Path | None = None) -> str:
    """Run a tool and return what it wrote; a failure shows all of it."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} exited with {done.returncode}: {argv}\n{done.stdout}{done.stderr}")
    return done.stdout
