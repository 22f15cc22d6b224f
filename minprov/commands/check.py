"""``minprov check``: what would keep a machine, a tree or a disk image from coming up on Azure."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from minprov.commands.output import print_text
from minprov.commands.parser import Parser
from minprov.commands.stopping import clear_up_when_stopped
from minprov.errors import ProvisioningError, Reason
from minprov.image.checks.outcome import run_checks
from minprov.image.checks.text import describe, render, render_list, to_document, to_junit
from minprov.image.progress import Progress
from minprov.image.subject import Purpose, Subject
from minprov.image.tree import Tree

if TYPE_CHECKING:
    from minprov.image.checks.outcome import Outcome
    from minprov.image.model import Disk

FINDINGS = 1
"""The exit status where something fails, sysexits having none for it."""


def run(argv: list[str]) -> int:
    """Check and return the exit status.

    Raises:
        ProvisioningError: USAGE, NOT_PERMITTED, OUTPUT_FAILED, and those of reading an image.

    """
    flags = vars(build_parser().parse_args(argv))
    if flags.get("list"):
        print_text([render_list()])
        return os.EX_OK
    image = flags.get("image")
    if name := flags.get("fix"):
        return _fix(name, flags)
    if flags.get("dry_run"):
        raise ProvisioningError(Reason.USAGE, detail="--dry-run is for --fix: a check changes nothing")
    if image is None:
        return _check(flags, flags.get("root", "/"), None)
    if "root" in flags:
        raise ProvisioningError(Reason.USAGE, detail="IMAGE and --root are two places: one of them")
    if flags.get("run_tools"):
        raise ProvisioningError(
            Reason.USAGE, detail="nothing is run of a disk image", hint="--root DIR, where it is mounted"
        )
    from minprov.image.disk import disk_tree

    clear_up_when_stopped()
    with disk_tree(image) as (root, disk):
        return _check(flags, root, disk)


def _fix(name: str, flags: dict[str, Any]) -> int:
    if "image" in flags:
        raise ProvisioningError(
            Reason.USAGE, detail="a disk image is not changed", hint="--root DIR, where it is mounted"
        )
    from minprov.commands.check_fix import fix

    root = flags.get("root", "/")
    _tree(root)
    return fix(name, root, dry_run=flags.get("dry_run", False), as_json=flags.get("json", False))


def _check(flags: dict[str, Any], root: str, disk: Disk | None) -> int:
    """Check the tree at `root`, which is a disk's if there is one, print what was found, and return the exit status."""
    subject = Subject(
        _tree(root),
        disk,
        Purpose(
            int(flags["generation"]) if "generation" in flags else None,
            nvme=flags.get("nvme", False),
            trusted_launch=flags.get("trusted_launch", False),
            run_tools=flags.get("run_tools", False),
        ),
    )
    outcome = _run_checks(subject, flags.get("ignore", []))
    if disk:
        target = describe("image", disk.path, subject)
    else:
        target = describe("machine" if subject.tree.live else "tree", root, subject)
    if junit := flags.get("junit"):
        _write(junit, to_junit(target, outcome))
    document = to_document(target, outcome)
    print_text([json.dumps(document, indent=2) if flags.get("json") else render(target, outcome)])
    return FINDINGS if outcome.fails else os.EX_OK


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        prog="minprov check",
        description="Tell what would keep this machine, a tree or a disk image from coming up on Azure. Without "
        "--fix nothing is changed, and without --run-tools nothing of it is run; the network is not used. The exit "
        "status is 1 if something fails.",
    )
    parser.add_argument(
        "image", metavar="IMAGE", nargs="?", help="disk image: raw, qcow2, VHD, VHDX or VMDK (default: this machine)"
    )
    parser.add_argument("--root", metavar="DIR", help="check the tree at DIR (default: /)")
    parser.add_argument(
        "--generation",
        choices=("1", "2"),
        help="check for VMs of this generation alone (default: what the image can start as)",
    )
    parser.add_argument("--nvme", action="store_true", help="check for sizes with remote NVMe disks (default: no)")
    parser.add_argument(
        "--trusted-launch", action="store_true", help="check for Secure Boot; unsigned parts fail (default: a risk)"
    )
    parser.add_argument(
        "--run-tools",
        action="store_true",
        help="have the system's own sshd try its configuration, on this machine or a tree that you trust (default: no)",
    )
    parser.add_argument("--ignore", metavar="ID", action="append", help="leave a check out; may repeat (default: none)")
    parser.add_argument(
        "--fix",
        metavar="ID",
        help="do what one check asks for, on this machine or a tree: console, initramfs-hyperv, nic-names, "
        "sudo-password or vf (default: none)",
    )
    parser.add_argument("--dry-run", action="store_true", help="with --fix: show what would be done (default: no)")
    parser.add_argument("--list", action="store_true", help="print every check with its reason and source")
    parser.add_argument("--json", action="store_true", help="print one JSON document (default: text)")
    parser.add_argument("--junit", metavar="FILE", help="write a JUnit report, too (default: none)")
    return parser


def _tree(root: str) -> Tree:
    """Return the tree at `root`.

    Raises:
        ProvisioningError: USAGE if there is no system in it; NOT_PERMITTED.

    """
    if not os.path.isdir(root):
        raise ProvisioningError(Reason.USAGE, root=root, detail="not a directory")
    tree = Tree(root)
    if not (tree.exists("/etc") and (tree.exists("/usr") or tree.exists("/bin"))):
        raise ProvisioningError(Reason.USAGE, root=root, detail="there is no system in it: no /etc, or no programs")
    return tree


def _run_checks(subject: Subject, ignored: list[str]) -> Outcome:
    progress = Progress("checking")
    try:
        return run_checks(subject, ignored, progress.show)
    finally:
        progress.end()


def _write(path: str, text: str) -> None:
    try:
        # The name of an image may be no text.
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise ProvisioningError(Reason.OUTPUT_FAILED, path=path, detail=error.strerror) from error
