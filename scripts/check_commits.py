"""Check that commits are told as CONTRIBUTING.md asks: a subject of at most 70 characters, and a body that says why.

Older commits are as they are. Run by `make check`; exits with 1 and names the commits that are not so.
"""

from __future__ import annotations

import subprocess
import sys

AFTER = "bccb89c7be129f272162be5f8f54468e4cdd2338"
LONGEST = 70


def find_faults(after: str) -> list[str]:
    """Return what is wrong with the commits after one, where the history reaches back to it."""
    if subprocess.run(["git", "cat-file", "-e", f"{after}^{{commit}}"], check=False, capture_output=True).returncode:  # noqa: S607
        return []  # a clone without that history, or an archive without any
    log = ["git", "log", "-z", "--no-merges", "--format=%h%n%s%n%b", f"{after}..HEAD"]
    faults = []
    for commit in subprocess.run(log, check=True, capture_output=True, text=True).stdout.split("\0"):
        name, subject, body = [*commit.split("\n", 2), "", ""][:3]
        if len(subject) > LONGEST:
            faults.append(f"{name}: the subject has {len(subject)} characters, more than {LONGEST}: {subject}")
        if name and not body.strip():
            faults.append(f"{name}: no body says why: {subject}")
    return faults


if __name__ == "__main__":
    sys.exit("\n".join(find_faults(*(sys.argv[1:] or [AFTER]))) or None)
