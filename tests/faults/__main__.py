"""Run the fault campaign and print its table: all of it, or the cases whose names match one of the patterns given.

Exits with 1 if anything is not as expected.
"""

from __future__ import annotations

import fnmatch
import sys
import time

from .campaign import load_campaign, machines

ROW = "{:48} {:11} {:13} {:41} {:>4} {:>6} {:>6} {}"


def main() -> None:
    """Run it."""
    patterns = sys.argv[1:] or ["*"]
    cases = [case for case in load_campaign() if any(fnmatch.fnmatchcase(case.name, item) for item in patterns)]
    started, failed = time.monotonic(), 0
    with machines() as harness:
        if harness.unavailable:
            sys.exit(f"no machines to run it on: {harness.unavailable}")
        print(ROW.format("case", "outcome", "told last", "reason", "exit", "within", "took", ""))
        for case, running in [(case, case.start(harness)) for case in cases]:
            result = running.result()
            differences = case.judge(result)
            failed += bool(differences)
            want, verdict = case.expected, "FAILED" if differences else "ok"
            columns = (want.outcome, want.told, want.reason or "", want.exit, f"{want.within:g} s")
            print(ROW.format(case.name, *columns, f"{result.get('seconds', 0):.1f} s", verdict))
            print("".join(f"    {line}\n" for line in differences), end="", flush=True)
    print(f"{len(cases)} cases, {failed} failed, {time.monotonic() - started:.0f} s")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
