"""Checks of what a machine leaves behind in an image of it: identities, secrets, traces of its builder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minprov.image.findings import Check, Found, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.subject import Subject

MACHINE_ID = "/etc/machine-id"


def judge_machine_id(subject: Subject) -> Iterator[Found]:
    """Look for an id that all VMs of the image would share."""
    contents = (subject.tree.text(MACHINE_ID) or "").strip()
    if contents and contents != "uninitialized":
        yield Found("the image has a machine id", MACHINE_ID, 1)


CHECKS = (
    Check(
        "machine-id",
        Severity.FAILS,
        "/etc/machine-id is an empty file",
        "All VMs of the image would have one identity, and one DHCP client id, journal and set of keys made of it.",
        "machine-id(5)",
        judge_machine_id,
        "truncate -s 0 /etc/machine-id",
    ),
)
