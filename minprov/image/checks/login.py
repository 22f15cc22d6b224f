"""Checks of what a person needs to log in to a new VM: sshd and sudo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minprov.image.findings import Check, Found, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minprov.image.subject import Subject

DISABLE_PROVISIONING = "https://learn.microsoft.com/azure/virtual-machines/linux/disable-provisioning"


def judge_host_keys(subject: Subject) -> Iterator[Found]:
    """Look for private host keys, which every VM of the image would share."""
    for path in subject.tree.glob("/etc/ssh/ssh_host_*_key"):
        yield Found("a private host key is in the image", path)


CHECKS = (
    Check(
        "host-keys",
        Severity.FAILS,
        "no SSH host keys",
        "All VMs of the image would have the same private keys: each can impersonate every other.",
        DISABLE_PROVISIONING,
        judge_host_keys,
        "rm /etc/ssh/ssh_host_*; minprov makes new ones in each VM.",
    ),
)
