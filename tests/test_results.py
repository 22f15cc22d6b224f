"""The table of results that CI does not make: what is recorded of a target, and where."""

from __future__ import annotations

from scripts.record_results import Result, closing_line, with_result

DOCUMENT = "# Results\n\n| command | result |\n|---|---|\n| `make bench` | old |\n\nThe end.\n"


def test_a_row_is_replaced_and_a_new_one_appended() -> None:
    document = with_result(DOCUMENT, Result("bench", "2026-01-02", "abc1234", 12.4, "1.16"))
    document = with_result(document, Result("crash-all", "2026-01-02", "abc1234", 1.0, "a | b"))
    assert document.splitlines()[4:] == [
        "| `make bench` | 2026-01-02 | abc1234 | 12 | 1.16 |",
        r"| `make crash-all` | 2026-01-02 | abc1234 | 1 | a \| b |",
        "",
        "The end.",
    ]


def test_the_closing_line_is_without_its_dress() -> None:
    assert closing_line("one\n\x1b[32m====== 3 passed in 1.2s ======\x1b[0m\n\n", 0) == "3 passed in 1.2s"


def test_a_failure_is_recorded_as_one() -> None:
    assert closing_line("1 failed\nmake: *** [Makefile:9: bench] Error 1\n", 2) == "failed with status 2: 1 failed"
