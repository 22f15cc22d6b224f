"""A result, or the boot of an image, as one HTML page: nothing is fetched, no script is needed.

What stands on it is foreign text and escaped. Light or dark as the reader's system is; it can be printed, and read on a
phone.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from minprov.definitions import NamedTuple
from minprov.outcome.chart import describe, lay_out
from minprov.outcome.text import HEADINGS, action_state, flat, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from minprov.outcome.chart import Row

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --dim: #59636e; --back: #fff; --panel: #f4f6f8; --line: #d5dbe1;
        --good: #1a7f37; --bad: #cf222e; --work: #0969da; --wait: #b6c2cf; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --dim: #9198a1; --back: #0d1117; --panel: #161b22;
        --line: #30363d; --good: #3fb950; --bad: #ff7b72; --work: #58a6ff; --wait: #484f58; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--back); color: var(--text);
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.verdict { padding: 1rem; border-left: .4rem solid var(--good); background: var(--panel); }
.verdict.bad { border-color: var(--bad); }
.verdict p { margin: .25rem 0; overflow-wrap: anywhere; }
.dim { color: var(--dim); } .bad { color: var(--bad); } .verdict.bad { color: inherit; } .good { color: var(--good); }
table { border-collapse: collapse; width: 100%; } th { text-align: left; color: var(--dim); font-weight: normal; }
th, td { padding: .3rem .6rem .3rem 0; border-top: 1px solid var(--line); vertical-align: top; }
td { overflow-wrap: anywhere; } figure { margin: 0; overflow-x: auto; }
svg { display: block; min-width: 38rem; width: 100%; font: 12px system-ui, sans-serif; }
svg text { fill: var(--text); } svg .axis { stroke: var(--line); } svg .dim { fill: var(--dim); }
svg .work { fill: var(--work); } svg .wait { fill: var(--wait); } svg .refused { fill: var(--bad); }
.axis-table td:first-child { white-space: nowrap; text-align: right; color: var(--dim); width: 5rem; }
.axis-table td { border: 0; padding: .1rem .6rem .1rem 0; } .axis-table .mark td { border-top: 1px solid var(--line); }
code { font: .85rem/1.4 ui-monospace, monospace; }
@media (max-width: 40rem) { .wide thead { display: none; } .wide tr, .wide td { display: block; }
  .wide td { border: 0; padding: 0; } .wide tr { border-top: 1px solid var(--line); padding: .4rem 0; }
  .axis-table td:first-child { text-align: left; } }
@media print { body { max-width: none; } figure { overflow: visible; } svg { min-width: 0; }
  tr { break-inside: avoid; } }
"""
ROW_HEIGHT, LABEL_WIDTH, CHART_WIDTH = 22, 230, 700


class Moment(NamedTuple):
    """Something that happened in a boot, in seconds from its start: a line of the console, or what the platform saw."""

    at: float
    text: str
    of_console: bool


class Verdict(NamedTuple):
    """What it came to, in one sentence, and what belongs to it."""

    good: bool
    sentence: str
    details: Sequence[str] = ()


def render_result_page(document: dict[str, Any]) -> str:
    """Return the page for a document of `minprov/result/1`."""
    error, health = document["error"], document["health"]
    details = [f"VM id {document['vm_id']}"] if document["vm_id"] else []
    if error:
        details += [f"{error['reason']}, exit status {error['exit_status']}"]
        details += [f"{key}: {value}" for key, value in error["data"].items()]
    if health["reported"]:
        details.append(f"{health['reported']} reported by {health['channel']}, attempts: {health['attempts']}")
    verdict = Verdict(error is None, f"minprov {document['version']}: {HEADINGS[document['outcome']]}", details)
    sources = ((words(name), found["state"], found["detail"]) for name, found in document["sources"].items())
    properties = (
        (words(name), flat(found["value"]), f"from {found['from']}") for name, found in document["properties"].items()
    )
    actions = ((item["action"], action_state(item), item["target"], item["detail"]) for item in document["actions"])
    parts = [
        _table("What was asked", ("source", "state", "detail"), sources),
        _table("What the VM was created with", ("property", "value", "source"), properties),
        _table("What changed", ("action", "state", "where", "what is there"), actions),
        _table("Notes", ("note",), ((note,) for note in [*document["notes"], *(document["differences"] or ())])),
    ]
    chart = _section("When", _chart(lay_out(document["timings"]), unit="ms"))
    return _page("minprov", verdict, [chart, *parts])


def render_boot_page(title: str, verdict: Verdict, moments: Sequence[Moment], rows: Sequence[Row] = ()) -> str:
    """Return the page for the boot of an image: its console and what the platform saw, side by side on one axis."""
    chart = _section("When", _chart(rows, unit="s"))
    lines = "".join(_moment(moment) for moment in sorted(moments, key=lambda moment: moment.at))
    heads = "<tr><th>seconds</th><th>serial console</th><th>seen by the platform</th></tr>"
    table = f'<table class="wide axis-table"><thead>{heads}</thead><tbody>{lines}</tbody></table>'
    return _page(title, verdict, [chart, _section("What happened", table if lines else "")])


def _page(title: str, verdict: Verdict, parts: Iterable[str]) -> str:
    details = "".join(f"<p>{escape(detail)}</p>" for detail in verdict.details)
    kind = "verdict" if verdict.good else "verdict bad"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<div class="{kind}"><h1>{escape(verdict.sentence)}</h1>{details}</div>{"".join(parts)}</body></html>\n'
    )


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>{content}</section>" if content else ""


def _table(heading: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    heads = "".join(f"<th>{column}</th>" for column in columns)
    return _section(
        heading, body and f'<table class="wide"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    )


def _moment(moment: Moment) -> str:
    cell = f"<td><code>{escape(moment.text)}</code></td>"
    cells = f"{cell}<td></td>" if moment.of_console else f"<td></td>{cell}"
    mark = "" if moment.of_console else ' class="mark"'
    return f"<tr{mark}><td>{moment.at:.1f}</td>{cells}</tr>"


def _chart(rows: Sequence[Row], *, unit: str) -> str:
    """Draw the rows as SVG, times along it."""
    end = max((bar.end for row in rows for bar in row.bars), default=0)
    if not end:
        return ""
    scale = CHART_WIDTH / end
    height = ROW_HEIGHT * (len(rows) + 1)
    width = LABEL_WIDTH + CHART_WIDTH + 10
    drawn = []
    for tick in range(5):
        x, at = LABEL_WIDTH + tick * CHART_WIDTH / 4, end * tick / 4
        anchor = "end" if tick == 4 else "middle" if tick else "start"  # the last one
        drawn.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - ROW_HEIGHT}"/>')
        drawn.append(f'<text class="dim" x="{x:.1f}" y="{height - 6}" text-anchor="{anchor}">{at:.4g} {unit}</text>')
    for index, row in enumerate(rows):
        y = index * ROW_HEIGHT
        label = row.name if len(row.name) <= 36 else f"{row.name[:35]}…"  # what fits
        drawn.append(f'<text x="0" y="{y + 15}">{escape(label)}</text>')
        for bar in row.bars:
            x, length = LABEL_WIDTH + bar.start * scale, max((bar.end - bar.start) * scale, 2)
            title = escape(f"{row.name}: {bar.label or describe(row)}")
            shape = f'x="{x:.1f}" y="{y + 4}" width="{length:.1f}" height="{ROW_HEIGHT - 8}" rx="2"'
            drawn.append(f'<rect class="{bar.kind}" {shape}><title>{title}</title></rect>')
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="timeline">{"".join(drawn)}</svg></figure>'
        '<p class="dim">Blue: work. Grey: waiting. Red: attempts in vain.</p>'
    )
