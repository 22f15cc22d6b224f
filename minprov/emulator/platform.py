"""The emulated platform: its sockets, the record of every request, and the health it was told.

`Emulator` binds at once, so that its URLs are known even while a fault script keeps a server from listening. A request
is judged by the pure endpoint functions against the VM of the moment, recorded, and only then answered: what a guest
asked is seen even if it never gets its reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import socket
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from aiohttp import web

from minprov.errors import ProvisioningError, Reason

from . import host_plugin, imds, wireserver
from .delivery import deliver, edit
from .exchange import HealthReport, Reply, Request
from .faults import NO_FAULTS, Faults, ServerFaults, Step
from .vm import SAMPLE_VM, VirtualMachine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import ModuleType, TracebackType

LOOPBACK = ("127.0.0.1", 0)
# How long a reply in progress may take once the emulator is told to end, in seconds.
_GRACE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request as it was judged. `at_ms` is the monotonic clock, comparable between processes of one machine."""

    at_ms: float
    server: str
    endpoint: str | None
    request: Request
    reply: Reply
    step: Step

    @property
    def status(self) -> int | None:
        """Return the status that was sent, `None` if the script sent no HTTP reply."""
        if self.step.raw is not None or (self.step.drop is not None and self.step.truncate is None):
            return None
        return self.step.status or self.reply.status

    @property
    def verdict(self) -> str:
        """Return `accepted`, `refused`, or `scripted` if a fault script answered in the platform's place."""
        if not self.step.is_heard:
            return "scripted"
        return "accepted" if self.reply.refusal is None else "refused"


class RateLimit:
    """Admits so many requests in any second, or all of them."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._admitted: deque[float] = deque()

    def admits(self, at_ms: float) -> bool:
        """Tell whether a request at that time may pass, and count it if so."""
        while self._admitted and self._admitted[0] <= at_ms - 1000:
            self._admitted.popleft()
        if self._limit is not None and len(self._admitted) >= self._limit:
            return False
        self._admitted.append(at_ms)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """One of the platform's addresses: the rules it answers by, and its socket."""

    name: str
    rules: ModuleType
    socket: socket.socket
    faults: ServerFaults
    limit: RateLimit

    @property
    def url(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"http://{host}:{port}"


class Emulator:
    """The platform of one VM, as an asynchronous context manager.

    `requests` and `health_reports` grow as the guest speaks; `vm` is what the platform believes at the moment.
    `on_request` is called with every exchange, at the moment it is judged.
    """

    def __init__(
        self,
        vm: VirtualMachine = SAMPLE_VM,
        *,
        faults: Faults = NO_FAULTS,
        wireserver_address: tuple[str, int] = LOOPBACK,
        imds_address: tuple[str, int] = LOOPBACK,
        host_plugin_address: tuple[str, int] | None = LOOPBACK,
        on_request: Callable[[Exchange], None] | None = None,
    ) -> None:
        self.vm = vm
        self.faults = faults
        self.requests: list[Exchange] = []
        self.health_reports: list[HealthReport] = []
        self._on_request = on_request
        self._addresses: Mapping[str, tuple[ModuleType, tuple[str, int] | None]] = {
            "wireserver": (wireserver, wireserver_address),
            "imds": (imds, imds_address),
            "host-plugin": (host_plugin, host_plugin_address),
        }
        self._servers: dict[str, _Server] = {}
        self._asked: Counter[str | None] = Counter()
        self._in_progress: set[asyncio.Transport | None] = set()
        self._asked_at_all = asyncio.Event()
        self._stopping = asyncio.Event()
        self._news = asyncio.Condition()
        self._resources = contextlib.AsyncExitStack()

    @property
    def wireserver_url(self) -> str:
        """Return where the WireServer is, or will be when it listens."""
        return self._servers["wireserver"].url

    @property
    def imds_url(self) -> str:
        """Return where IMDS is, or will be when it listens."""
        return self._servers["imds"].url

    @property
    def host_plugin_url(self) -> str | None:
        """Return where the HostGAPlugin is, `None` if this platform has none."""
        server = self._servers.get("host-plugin")
        return None if server is None else server.url

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as resources:
            for name, (rules, address) in self._addresses.items():
                if address is not None:
                    bound = resources.enter_context(_bind(address))
                    faults = self.faults.servers.get(name, ServerFaults())
                    self._servers[name] = _Server(
                        name=name, rules=rules, socket=bound, faults=faults, limit=RateLimit(faults.limit)
                    )
            runners = {}
            for server in self._servers.values():
                runner = web.ServerRunner(web.Server(self._handler(server), access_log=None))
                await runner.setup()
                resources.push_async_callback(runner.cleanup)
                runners[server.name] = runner
            # Left without the exception that ends the block: a group would wrap it, and these tasks end by themselves.
            latecomers = await asyncio.TaskGroup().__aenter__()
            resources.push_async_callback(latecomers.__aexit__, None, None, None)
            resources.callback(self._stop)
            for server in self._servers.values():
                site = web.SockSite(runners[server.name], server.socket)
                if server.faults.listen_after:
                    await self._keep_away(server, resources)
                    latecomers.create_task(self._listen_late(server, site))
                else:
                    await site.start()
            self._resources = resources.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._resources.__aexit__(exc_type, exc_value, traceback)

    async def wait_for_health(self, *states: str) -> HealthReport:
        """Wait until a report with one of these states was accepted, and return the first such."""

        def first() -> HealthReport | None:
            return next((report for report in self.health_reports if report.state in states), None)

        async with self._news:
            report = await self._news.wait_for(first)
            assert report is not None  # noqa: S101  # what wait_for waits for
            return report

    def _handler(self, server: _Server) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        async def handle(received: web.BaseRequest) -> web.StreamResponse:
            at_ms = time.monotonic() * 1000
            self._asked_at_all.set()
            request = Request(
                method=received.method,
                path=received.path,
                query=tuple(received.query.items()),
                headers={name.lower(): value for name, value in received.headers.items()},
                body=await received.read(),
            )
            endpoint = server.rules.endpoint(request)
            step = self.faults.step(endpoint, self._asked[endpoint])
            self._asked[endpoint] += 1
            self.vm = replace(self.vm, **step.change)
            if not server.limit.admits(at_ms):
                reply = Reply(status=429, refusal=f"more than {server.faults.limit} requests in a second")
            elif server.faults.signed_only and not request.is_signed:
                reply = Reply(status=401, refusal="the guest proxy agent did not sign it")
            else:
                # In a thread, since some answers take other programs to make.
                reply = edit(await asyncio.to_thread(server.rules.answer, self.vm, request), step)
            await self._record(
                Exchange(
                    at_ms=at_ms,
                    server=server.name,
                    endpoint=endpoint,
                    request=request,
                    reply=reply,
                    step=step,
                )
            )
            transport = received.transport
            self._in_progress.add(transport)
            try:
                return await deliver(received, reply, step, self._stopping)
            finally:
                self._in_progress.remove(transport)

        return handle

    def _stop(self) -> None:
        """Cut every wait short, and after a moment the connection of a guest that does not take its reply."""
        self._stopping.set()
        self._asked_at_all.set()
        for transport in self._in_progress:
            if transport is not None:
                asyncio.get_running_loop().call_later(_GRACE, transport.abort)

    async def _record(self, exchange: Exchange) -> None:
        self.requests.append(exchange)
        if exchange.verdict == "accepted" and exchange.reply.health is not None:
            self.health_reports.append(exchange.reply.health)
        if self._on_request is not None:
            self._on_request(exchange)
        async with self._news:
            self._news.notify_all()

    async def _keep_away(self, server: _Server, resources: contextlib.AsyncExitStack) -> None:
        """Let connections wait for ever: one that nobody accepts fills the queue, and Linux drops further SYNs."""
        if server.faults.until_then == "ignore":
            server.socket.listen(0)
            filler = resources.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            filler.setblocking(False)
            await asyncio.get_running_loop().sock_connect(filler, server.socket.getsockname())

    async def _listen_late(self, server: _Server, site: web.SockSite) -> None:
        if server.faults.from_first_request:
            await self._asked_at_all.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(server.faults.listen_after) else server.faults.listen_after):
                await self._stopping.wait()
        if not self._stopping.is_set():
            await site.start()


def _bind(address: tuple[str, int]) -> socket.socket:
    """Return a socket that has the address but does not listen, so that connections to it are refused."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        reason = Reason.NOT_PERMITTED if isinstance(error, PermissionError) else Reason.USAGE
        where = f"{address[0]}:{address[1]}"
        hint = f"ip address add {address[0]}/32 dev lo" if error.errno == errno.EADDRNOTAVAIL else None
        raise ProvisioningError(reason, address=where, detail=error.strerror, hint=hint) from error
    return bound
