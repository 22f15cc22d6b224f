"""Attack the program for some minutes, from one seed; print, or write, what was tried, how often, and what held.

Exits with 1 if anything did not hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from tests.harness.client import Harness

from .readers import attack_readers
from .whole_runs import ADVERSARY, attacks, judge

MACHINES = 2
HEAD = """\
# Attacks

<!-- Written by `make attack`: python -m tests.attack --write docs/attacks.md -->

What `make attack` tried, from seed {seed}, in {seconds:.0f} s. [security.md](security.md) says what others can do and
what stands in the way.

- A reader is attacked with documents and discs that are one mistake away from a good one: it returns a value or an
  error with a reason, within a second.
- A run is the whole program with the real tools on a machine of its own, attacked by its disc or by the answers of the
  platform.
- An adversary is a process of another user, or of the account that becomes the administrator's. It puts links to
  root's files, hard links, FIFOs, directories and files of its own in the place that the row names, one after another,
  during the run.

Of every run must hold: it ends in time with a documented exit status; the console was told; the platform was told Ready
exactly if the run says so, and then the administrator may become root; of root's files only those are changed that a
run is there to write, and none is given away, or can be read by the adversary; no key became the administrator's that
was not asked for; neither the password nor customData was shown.

| attack | tried | Ready | swaps | held |
|---|---|---|---|---|
"""


def main() -> int:
    """Attack."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed tries the same (default: 1)")
    parser.add_argument("--examples", type=int, default=3000, help="inputs for each reader (default: 3000)")
    parser.add_argument("--runs", type=int, default=95, help="runs with discs and answers (default: 95)")
    parser.add_argument("--adversaries", type=int, default=54, help="runs beside an adversary (default: 54)")
    parser.add_argument("--minutes", type=float, default=0.0, help="go on with further seeds for so long")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table there")
    flags = parser.parse_args()
    started = time.monotonic()
    tried: Counter[str] = Counter()
    held: Counter[str] = Counter()
    ready: Counter[str] = Counter()
    swaps: Counter[str] = Counter()
    broken: list[str] = []
    number = flags.seed
    while True:
        for reader in attack_readers(number, flags.examples):
            tried[reader.attack] += reader.times
            held[reader.attack] += reader.times - len(reader.broken)
            broken += (f"seed {number}: {reader.attack}: {line}" for line in reader.broken)
        with Harness(MACHINES, [sys.executable, "-m", "minprov"]) as harness:
            if harness.unavailable:
                sys.exit(f"no machines to run it on: {harness.unavailable}")
            chosen = attacks(number, flags.runs, flags.adversaries)
            for attack, running in [(attack, harness.start(attack.scenario, ADVERSARY)) for attack in chosen]:
                came = judge(attack, running.result())
                tried[attack.kind] += 1
                held[attack.kind] += not came.broken
                ready[attack.kind] += came.ready
                swaps[attack.kind] += came.swaps
                broken += (f"seed {number}: {attack.kind}: {line}" for line in came.broken)
        number += 1
        if time.monotonic() - started >= flags.minutes * 60:
            break
    seconds = time.monotonic() - started
    rows = [_row(kind, tried[kind], ready, swaps[kind], held[kind]) for kind in tried]
    runs = sum(tried[kind] for kind in ready)
    rows.append(f"\n{runs} runs, {swaps.total()} swaps, {len(broken)} that did not hold.\n")
    table = HEAD.format(seed=flags.seed, seconds=seconds) + "".join(rows)
    print(table, *broken, sep="\n")
    if flags.write:
        flags.write.write_text(table, encoding="utf-8")
    return bool(broken)


def _row(kind: str, tried: int, ready: Counter[str], swaps: int, held: int) -> str:
    columns = (kind, tried, ready.get(kind, ""), swaps or "", "all" if held == tried else held)
    return f"| {' | '.join(map(str, columns))} |\n"


if __name__ == "__main__":
    sys.exit(main())
