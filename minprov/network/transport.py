"""HTTP to the two platform addresses: the only module that imports aiohttp.

Owns what one attempt may cost and when the next one is due; must not know what a body means. Plain HTTP, no proxies, no
redirects, no compression, no cookies, bounded bodies: these addresses are link-local and answer for themselves
(https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service, "Proxies").
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from minprov import __version__
from minprov.deferred import classes_deferred, deferred, patterns_deferred, without
from minprov.errors import ProvisioningError
from minprov.limits import ATTEMPT_LIMIT, CONNECT_LIMIT, READ_LIMIT, SHORTEST_DELAY
from minprov.network.retry import AttemptFailed, Endpoint
from minprov.network.routes import RouteWatch, has_route

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from minprov.outcome.timeline import Timeline

# Where uvloop has loaded ssl, aiohttp builds TLS contexts with all the system's certificates when it is imported: 40 ms
# for a program that speaks plain HTTP only. OpenSSL reads the variable, and nothing else in this process uses it.
os.environ.setdefault("SSL_CERT_FILE", "/dev/null")

# What aiohttp's code and its libraries' would use for cookies, uploads, web sockets, tracing, proxies, names beyond
# ASCII and other charsets: two fifths of what the import takes. `http.server` has the names of statuses, for proxies.
UNUSED = (
    *("aiohttp._websocket.reader", "aiohttp.client_middleware_digest_auth", "aiohttp.client_ws", "aiohttp.cookiejar"),
    *("aiohttp.formdata", "aiohttp.http_websocket", "aiohttp.multipart", "aiohttp.payload_streamer", "aiohttp.tracing"),
    *("attr.converters", "attr.filters", "attr.validators"),
    *("charset_normalizer", "datetime", "email.header", "email.parser", "email.policy", "email.utils"),
    *("hashlib", "html"),
    *("http.server", "idna", "inspect", "mimetypes", "netrc", "pathlib", "random", "shlex", "textwrap", "traceback"),
    *("urllib.request", "uuid"),
)
with deferred(*UNUSED), without("ssl"), patterns_deferred(), classes_deferred():
    import aiohttp
    from aiohttp.client_proto import ResponseHandler

logger = logging.getLogger(__name__)

# JSON health has been answered with 201; waagent counts 205 and 206 as failures (`common/utils/restutil.py`).
ACCEPTED_STATUSES = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED})
USER_AGENT = f"minprov/{__version__}"
MAX_BODY = 1 << 20
MAX_ANSWER = MAX_BODY + (1 << 16)
"""Bytes of a whole answer with its headers and trailers, which some releases of aiohttp collect without end."""


# aiohttp's own words are long, and name its classes.
BROKEN_ANSWERS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientPayloadError, "the body ended before it was complete"),
    (aiohttp.ServerDisconnectedError, "the connection was closed without an answer"),
    (aiohttp.ClientResponseError, "the answer is not HTTP"),
    (aiohttp.InvalidURL, "the URL is not valid"),
    (Exception, "the connection failed"),
)

# What an agent that is not ready causes: a request unsigned, or by way of a listener that does not know it yet
# (GuestProxyAgent: proxy_agent/src/proxy/proxy_server.rs).
PROXY_AGENT_STATUSES = frozenset({401, 403, 421, 502, 503})


class _BoundedConnection(ResponseHandler):
    """A connection that is closed once its one answer is longer than `MAX_ANSWER`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._received = 0

    def data_received(self, data: bytes) -> None:
        left = MAX_ANSWER - self._received
        self._received += len(data)
        # All that is allowed is passed on, which is more than a body may have: one without a length would seem to end.
        super().data_received(data[: max(0, left)])
        if len(data) > left and self.transport:
            self.set_exception(aiohttp.ClientPayloadError())
            self.transport.abort()


class _BoundedConnector(aiohttp.TCPConnector):
    def __init__(self) -> None:
        super().__init__(force_close=True)
        # The way in that every release has had since 3.0; mypy takes a partial for invariant.
        self._factory = partial(_BoundedConnection, asyncio.get_running_loop())  # type: ignore[assignment]


class _NoCookies:
    """A jar that stays empty. aiohttp has one too, in a module that imports pickle for the others."""

    def filter_cookies(self, _url: object) -> dict[str, str]:
        return {}

    def update_cookies(self, *_from: object) -> None:
        """Forget them."""

    update_cookies_from_headers = update_cookies


class Transport:
    """An HTTP client session; enter it in the event loop that uses it.

    For `unsigned_limit` seconds the platform may refuse requests that a proxy agent does not sign yet: such a refusal
    is not for good.
    """

    def __init__(self, timeline: Timeline, *, unsigned_limit: float = 0.0) -> None:
        self._timeline = timeline
        self._unsigned_until = time.monotonic() + unsigned_limit
        self._routes = RouteWatch()
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._routes.__enter__()
        self._session = aiohttp.ClientSession(
            connector=_BoundedConnector(),
            cookie_jar=_NoCookies(),  # type: ignore[arg-type]  # what of a jar is used
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT, sock_read=READ_LIMIT),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._routes.__exit__()
        await self._session.close()

    async def attempt(
        self,
        endpoint: Endpoint,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        deadline: float,
        body: bytes | None = None,
    ) -> bytes:
        """Make one request, which ends by the deadline, and return the body of an accepted GET.

        Without a route there is nothing to attempt: the request is made when the kernel says that there is one.

        Raises `AttemptFailed`.
        """
        while True:
            start = self._timeline.now_ms()
            outcome = "cancelled"
            try:
                contents = await self._request(endpoint, method, url, headers, deadline, body)
                outcome = "accepted"
                return contents
            except AttemptFailed as failure:
                outcome = str(failure.status or failure.error.data.get("detail"))
                if not failure.no_route or has_route(_host(url)):
                    raise
                no_route = failure
            finally:
                self._timeline.add_request(f"{endpoint.name} {method}", start, outcome)
            logger.info("no route to %s: waiting for the kernel to have one", _host(url))
            await self.wait_for_route(url, deadline=deadline)
            if time.monotonic() >= deadline:
                raise no_route

    async def wait_for_route(self, url: str, *, deadline: float) -> None:
        """Return once there is a route to the URL's host, or at the deadline."""
        await self._routes.wait_for_route(_host(url), deadline=deadline)

    async def _request(
        self,
        endpoint: Endpoint,
        method: str,
        url: str,
        headers: Mapping[str, str],
        deadline: float,
        body: bytes | None,
    ) -> bytes:
        start = time.monotonic()
        try:
            async with (
                asyncio.timeout_at(min(deadline, start + ATTEMPT_LIMIT)),
                self._session.request(
                    method,
                    url,
                    data=body,
                    headers={"Accept-Encoding": "identity", "User-Agent": USER_AGENT, **headers},
                    allow_redirects=False,
                ) as response,
            ):
                if response.status not in ACCEPTED_STATUSES:
                    raise self._refused(endpoint, url, response)
                if method == "POST":
                    return b""  # what was accepted is accepted, whatever becomes of the rest of the answer
                return await _read_bounded(endpoint, url, response)
        except aiohttp.ServerTimeoutError as error:
            connecting = str(error).startswith("Connection timeout")  # a class of its own only since aiohttp 3.10
            reason = endpoint.connect_timed_out if connecting else endpoint.read_timed_out
            limit = CONNECT_LIMIT if connecting else READ_LIMIT
            raise AttemptFailed(ProvisioningError(reason, url=url, detail=f"no answer in {limit:g} s")) from error
        except TimeoutError as error:
            detail = f"no complete answer in {time.monotonic() - start:.1f} s"
            raise AttemptFailed(ProvisioningError(endpoint.read_timed_out, url=url, detail=detail)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _disconnected(endpoint, url, error) from error

    def _refused(self, endpoint: Endpoint, url: str, response: aiohttp.ClientResponse) -> AttemptFailed:
        status, after = response.status, response.headers.get("Retry-After", "")
        unsigned = status in PROXY_AGENT_STATUSES and time.monotonic() < self._unsigned_until
        return AttemptFailed(
            ProvisioningError(endpoint.refused, http_code=status, url=url),
            status=status,
            final=not unsigned and (status in endpoint.final_statuses or 300 <= status < 400),
            delay=max(min(float(after), endpoint.longest_wait), SHORTEST_DELAY) if after.isdecimal() else None,
        )


async def _read_bounded(endpoint: Endpoint, url: str, response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            detail = f"body longer than {MAX_BODY} bytes"
            raise AttemptFailed(ProvisioningError(endpoint.refused, url=url, detail=detail))
    return bytes(body)


def _disconnected(endpoint: Endpoint, url: str, error: aiohttp.ClientError | OSError) -> AttemptFailed:
    number = getattr(error, "errno", None) or getattr(getattr(error, "os_error", None), "errno", None)
    detail = os.strerror(number) if number else next(text for kind, text in BROKEN_ANSWERS if isinstance(error, kind))
    hint = None
    if number == errno.EACCES:
        hint = "systemd-imdsd may have locked the address behind a prohibit route, or a firewall admits root only"
    failed = ProvisioningError(endpoint.connection_failed, url=url, detail=detail, hint=hint)
    return AttemptFailed(failed, no_route=number == errno.ENETUNREACH, prohibited=number in (errno.EACCES, errno.EPERM))


def _host(url: str) -> str:
    return url.removeprefix("http://").partition("/")[0].partition(":")[0]
