"""Keys that an ovf-env names by a thumbprint: what the program that fetches them prints, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from minprov.errors import ProvisioningError, Reason
from minprov.machine.duty_record import shown_error
from minprov.model import Faults, OvfEnv, SshPublicKey
from minprov.sources import certificate_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE, FAR = "D99BEE4F6D555C7CF551DC3AE3527E1EAF3524C9", "0" * 40
GIVEN = SshPublicKey("ssh-ed25519 AAAA given", fingerprint=HERE)


class Complete:
    """The program in question prints a document, or ends otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(
        self, ovf: OvfEnv, *program: str, keys: Mapping[str, str] | None = None, error: Reason | None
    ) -> OvfEnv:
        shown = shown_error(ProvisioningError(error) if error else None)
        document = json.dumps({"public_keys": keys or {}, "error": shown})
        argv = [*(program or ("printf", "%s", document))]
        self._monkeypatch.setattr(certificate_keys, "own_argv", lambda *_: argv)
        return asyncio.run(certificate_keys.with_fetched_keys(ovf, limit=20))


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> Complete:
    return Complete(monkeypatch)


def test_a_key_gets_its_value_by_the_thumbprint_in_any_form(complete: Complete) -> None:
    ovf = OvfEnv(ssh_public_keys=(GIVEN, SshPublicKey(None, fingerprint=HERE.lower())))
    done = complete(ovf, keys={HERE: "ssh-rsa BBBB"}, error=None)
    assert [key.value for key in done.ssh_public_keys] == ["ssh-ed25519 AAAA given", "ssh-rsa BBBB"]
    assert done.faults == {}


@pytest.mark.parametrize("fingerprint", [FAR, "no thumbprint"])
def test_one_that_was_not_delivered_is_the_fault_and_loses_no_other(complete: Complete, fingerprint: str) -> None:
    ovf = OvfEnv(ssh_public_keys=(SshPublicKey(None, fingerprint=fingerprint), SshPublicKey(None, fingerprint=HERE)))
    done = complete(ovf, keys={HERE: "ssh-rsa BBBB"}, error=None)
    assert [key.value for key in done.ssh_public_keys] == [None, "ssh-rsa BBBB"]
    fault = done.faults["ssh_public_keys"]
    assert (fault.reason, fault.data) == (Reason.CERTIFICATE_NOT_DELIVERED, {"thumbprint": fingerprint})


@pytest.mark.parametrize(
    ("program", "error", "reason"),
    [
        ((), Reason.CERTIFICATES_UNREADABLE, Reason.CERTIFICATES_UNREADABLE),
        (("false",), None, Reason.TOOL_FAILED),
        (("no-such-program",), None, Reason.TOOL_NOT_FOUND),
    ],
)
def test_why_none_was_fetched_is_the_fault(
    complete: Complete, program: tuple[str, ...], error: Reason | None, reason: Reason
) -> None:
    earlier = Faults(hostname=ProvisioningError(Reason.INVALID_HOSTNAME))
    ovf = OvfEnv(ssh_public_keys=(SshPublicKey(None, fingerprint=HERE),), faults=earlier)
    done = complete(ovf, *program, error=error)
    assert {name: fault.reason for name, fault in done.faults.items()} == {
        "hostname": Reason.INVALID_HOSTNAME,
        "ssh_public_keys": reason,
    }
    assert list(earlier) == ["hostname"], "what was read stays as it was"
