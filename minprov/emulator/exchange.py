"""A request as it came in and the reply the platform decides on, free of sockets.

The endpoints (`wireserver`, `imds`, `host_plugin`) are functions from the one to the other, so that every rule can be
tested as a table. How a reply travels is the business of `delivery`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


# GuestProxyAgent: proxy_agent_shared/src/hyper_client.rs
_SIGNATURE_HEADER, _SIGNATURE_SCHEME = "x-ms-azure-host-authorization", "Azure-HMAC-SHA256 "


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. Header names are in lower case; `query` keeps the order and the duplicates of the wire."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def is_signed(self) -> bool:
        """Tell whether the guest proxy agent signed it. The signature is taken as it is: its key is the agent's."""
        return self.headers.get(_SIGNATURE_HEADER, "").startswith(_SIGNATURE_SCHEME)

    def parameter(self, name: str) -> str | None:
        """Return the first query parameter of that name, whatever its case."""
        return next((value for key, value in self.query if key.lower() == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """What a guest said of its own provisioning, and by which channel (`xml` or `json`)."""

    channel: str
    state: str
    substatus: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the platform answers. `refusal` says why a request was turned down; `health` is a report it accepted."""

    status: int = 200
    content_type: str = "text/xml; charset=utf-8"
    body: bytes = b""
    refusal: str | None = None
    health: HealthReport | None = None
