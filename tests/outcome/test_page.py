"""The page of a result and of a boot: whole, escaped, and alone."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from minprov.actions import Policy
from minprov.errors import ProvisioningError, Reason
from minprov.outcome.chart import WORK, Bar, Row
from minprov.outcome.page import Moment, Verdict, render_boot_page, render_result_page
from minprov.outcome.result import ActionResult, Result, State, to_document
from minprov.outcome.timeline import Span

VOID = {"meta", "line", "rect"}
MARKUP = "<script>alert(1)</script>&\"'"


class Checker(HTMLParser):
    """Finds out whether every element is closed, in order, and keeps text and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID or tag == "rect":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def failed_result() -> Result:
    error = ProvisioningError(Reason.TOOL_FAILED, tool=MARKUP, detail="no end after 60 s")
    spans = [Span("media", 1, 5), Span("IMDS GET", 5, 9, "request", "500"), Span(MARKUP, 2, 9, "wait")]
    result = Result(vm_id="7c9f4f7e-52f0-4a29-8d5a-3b0d1c6e9a14", spans=spans, error=error)
    result.actions = (
        ActionResult("ensure-user", MARKUP, Policy.REQUIRED, State.FAILED, "useradd failed", error=error),
    )
    result.notes.append(f"waagent is enabled, too: {MARKUP}")
    return result


def assert_stands_alone(page: str, checker: Checker) -> None:
    assert "script" not in checker.tags
    assert not {name for name, _ in checker.attributes} & {"src", "href", "onload", "style"}
    assert not re.search(r"url\(|@import|https?://", page)


def test_the_page_of_a_result_says_what_text_says_and_is_escaped() -> None:
    page = render_result_page(to_document(failed_result()))
    checker = Checker(page)
    for words in (
        "system tool failed, exit status 71",
        "useradd failed",
        "waagent is enabled, too",
        MARKUP,
        "IMDS GET",
    ):
        assert words in checker.text
    assert "verdict bad" in page
    assert_stands_alone(page, checker)


def test_the_page_of_a_boot_has_console_and_platform_on_one_axis() -> None:
    moments = [Moment(2.5, "report  Ready", of_console=False), Moment(1.25, f"[1.2] {MARKUP}", of_console=True)]
    rows = [Row("until the first request", [Bar(0, 2.5, WORK)])]
    page = render_boot_page(
        "minprov: a.img", Verdict(True, "a.img provisions itself", ["Ready after 2.5 s"]), moments, rows
    )
    checker = Checker(page)
    assert checker.text.index(MARKUP) < checker.text.index("report  Ready")
    assert "verdict bad" not in page.partition("</style>")[2]
    assert_stands_alone(page, checker)


def test_a_result_without_anything_has_a_page() -> None:
    Checker(render_result_page(to_document(Result())))
