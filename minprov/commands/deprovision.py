"""``minprov deprovision``: take from a machine what is its own, before an image is made of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from minprov.commands.logs import set_up_logging
from minprov.commands.output import print_text
from minprov.commands.parser import Parser
from minprov.config import load, load_duty
from minprov.errors import ProvisioningError, Reason
from minprov.image.checks.outcome import LEFTOVERS, judge
from minprov.image.deprovision.carrying_out import Done, carry_out
from minprov.image.deprovision.planning import IDS, Plan, Request, plan_deprovision
from minprov.image.findings import Finding, printable
from minprov.image.subject import Subject
from minprov.image.tree import Tree
from minprov.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.deprovision.rules import Item

SCHEMA = "minprov/deprovision/1"
SHUT_DOWN = "Shut down without writing a history: unset HISTFILE; systemctl poweroff"


def run(argv: list[str]) -> int:
    """Plan, ask, carry out, look again, and return the exit status.

    Raises:
        ProvisioningError: USAGE, CONFIG_INVALID, NOT_PERMITTED, NOT_PROVISIONED, USER_LOGGED_IN, NOT_CONFIRMED.

    """
    flags = vars(build_parser().parse_args(argv))
    root, dry_run, as_json = flags.get("root", "/"), flags.get("dry_run", False), flags.get("json", False)
    if as_json and not (dry_run or "yes" in flags):
        raise ProvisioningError(Reason.USAGE, detail="--json shows no plan to ask about", hint="--dry-run, or --yes")
    if not os.path.isdir(root):
        raise ProvisioningError(Reason.USAGE, root=root, detail="not a directory")
    if os.geteuid() != 0 and not dry_run:
        raise ProvisioningError(Reason.NOT_PERMITTED, detail="deprovisioning needs root", hint="try --dry-run")
    set_up_logging("warning")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it may be cut off anywhere
    system = System(root)
    options = load() if system.live else Subject(Tree(root)).options
    if isinstance(options, ProvisioningError):
        raise options
    request = Request(
        user=flags.get("user", False),
        keep=flags.get("keep", ()),
        without_manifest=flags.get("without_manifest", False),
        certificates=_certificate_directory(None if system.live else Subject(Tree(root)).configuration, system),
    )
    plan = plan_deprovision(system, Tree(root), options, request)
    if dry_run:
        document = to_document("planned", root, plan, [], [], [])
        print_text([json.dumps(document, indent=2)] if as_json else render_plan(plan))
        return os.EX_OK
    if not as_json:
        print_text(render_plan(plan))
    if not flags.get("yes"):
        if plan.logged_in:
            raise ProvisioningError(Reason.USER_LOGGED_IN, username=plan.logged_in[0], hint="--yes")
        _ask()
    notes: list[str] = []
    done = asyncio.run(carry_out(system, plan.items, notes.append))
    findings = judge(LEFTOVERS, Subject(Tree(root)))
    failed = [one for one in done if one.error]
    document = to_document("failed" if failed else "deprovisioned", root, plan, done, notes, findings)
    print_text([json.dumps(document, indent=2)] if as_json else render_done(done, notes, findings, live=system.live))
    return failed[0].error.reason.exit_status if failed and failed[0].error else os.EX_OK


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        prog="minprov deprovision",
        description="Take from this machine, or a tree, what is its own, before an image is made of it: what minprov "
        "made, identities, secrets, leases, logs. It shows what it would do and asks first.",
    )
    parser.add_argument("--user", action="store_true", help="remove the administrator, if minprov made the account")
    parser.add_argument(
        "--keep", metavar="ID", action="append", help=f"leave something; may repeat (one of {', '.join(IDS)})"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask, even if the user is logged in")
    parser.add_argument(
        "--without-manifest", action="store_true", help="go on where nothing says that the system was provisioned"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would go; change nothing (default: no)")
    parser.add_argument("--root", metavar="DIR", help="deprovision the tree at DIR (default: /)")
    parser.add_argument("--json", action="store_true", help="print one JSON document (default: text)")
    return parser


def to_document(
    outcome: str, root: str, plan: Plan, done: list[Done], notes: list[str], findings: list[Finding]
) -> dict[str, Any]:
    """Return what is planned, or was done, as a document."""
    errors = {one.item: str(one.error) for one in done if one.error}
    return {
        "schema": SCHEMA,
        "outcome": outcome,
        "root": root,
        "warnings": list(plan.warnings),
        "items": [
            {
                "id": item.id,
                "phase": item.phase.name.lower(),
                "action": item.act.value,
                "target": item.target,
                "why": item.why,
                **({"error": errors[item]} if item in errors else {}),
            }
            for item in plan.items
        ],
        "notes": notes,
        "leftovers": [finding._asdict() | {"severity": finding.severity.value} for finding in findings],
    }


def render_plan(plan: Plan) -> Iterator[str]:
    """Yield the plan's lines for people."""
    for item in plan.items:
        yield f"{item.act.value:14}  {printable(item.target)}: {_why(item)}"
    for warning in plan.warnings:
        yield f"note: {printable(warning)}"


def render_done(done: list[Done], notes: list[str], findings: list[Finding], *, live: bool) -> Iterator[str]:
    """Yield what came of it, and what is left."""
    failed = [one for one in done if one.error]
    yield f"{len(done) - len(failed)} of {len(done)} done and read back"
    for one in failed:
        yield f"failed: {one.item.act.value} {printable(one.item.target)}: {printable(str(one.error))}"
    for note in notes:
        yield f"note: {printable(note)}"
    for finding in findings:
        where = f"{finding.file}: " if finding.file else ""
        yield f"left: {where}{finding.what}"
    if live:
        yield SHUT_DOWN


def _certificate_directory(configuration: str | None, system: System) -> str | None:
    """Return where the configuration has certificates put; None where there is none, or no such duty."""
    if not (system.live or configuration):
        return None
    try:
        directory: str = load_duty("certificates", configuration).directory
    except ProvisioningError:
        return None  # the duty is not installed
    return directory


def _why(item: Item) -> str:
    return f"{item.why} ({item.id})"


def _ask() -> None:
    if not sys.stdin.isatty():
        raise ProvisioningError(Reason.NOT_CONFIRMED, detail="nobody can be asked", hint="--yes")
    sys.stderr.write("Go on? This cannot be undone. [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ProvisioningError(Reason.NOT_CONFIRMED, detail="the answer was no")
