"""What happened on the emulated platform, as JSON lines for programs and people to read.

One object on a line, told apart by `event`: `listening`, `request`, `health`, `end`. docs/emulator.md has the fields.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .platform import Emulator, Exchange

# The headers a rule of the platform looks at, and those that tell one client from another.
_HEADERS = (
    "content-type",
    "metadata",
    "user-agent",
    "x-forwarded-for",
    "x-ms-agent-name",
    "x-ms-azure-host-authorization",
    "x-ms-cipher-name",
    "x-ms-client-request-id",
    "x-ms-guest-agent-name",
    "x-ms-version",
)
# The endpoints whose request bodies say what a guest wanted to be known.
_WITH_BODY = frozenset({"health", "provisioning-health", "role-properties"})


def listening(platform: Emulator, media: str | None) -> str:
    """Return the line that says everything is ready to be asked."""
    return _line(
        "listening",
        imds=platform.imds_url,
        wireserver=platform.wireserver_url,
        host_plugin=platform.host_plugin_url,
        media=media,
        vm_id=platform.vm.vm_id,
    )


def request(exchange: Exchange) -> str:
    """Return the line of one request: what was asked, what was answered, and why."""
    asked = exchange.request
    return _line(
        "request",
        ms=round(exchange.at_ms, 3),
        server=exchange.server,
        endpoint=exchange.endpoint,
        method=asked.method,
        path=asked.path,
        query=dict(asked.query),
        headers={name: asked.headers[name] for name in _HEADERS if name in asked.headers},
        body=asked.body.decode(errors="replace") if exchange.endpoint in _WITH_BODY else None,
        status=exchange.status,
        verdict=exchange.verdict,
        detail=exchange.reply.refusal if exchange.verdict == "refused" else None,
    )


def health(exchange: Exchange) -> str | None:
    """Return the line of an accepted health report, `None` for any other exchange."""
    if exchange.verdict != "accepted" or exchange.reply.health is None:
        return None
    return _line("health", ms=round(exchange.at_ms, 3), **asdict(exchange.reply.health))


def end(platform: Emulator) -> str:
    """Return the line that sums up: the last state the platform was told, and how it got there."""
    verdicts = [exchange.verdict for exchange in platform.requests]
    reports = [asdict(report) for report in platform.health_reports]
    return _line(
        "end",
        state=reports[-1]["state"] if reports else None,
        health=reports,
        requests={verdict: verdicts.count(verdict) for verdict in ("accepted", "refused", "scripted")},
    )


def _line(event: str, **fields: object) -> str:
    return json.dumps({"event": event} | fields)  # in ASCII: a guest may send what UTF-8 cannot carry
