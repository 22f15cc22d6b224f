"""When what happened, in milliseconds since the process started, and what is being waited for at the moment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from minprov.definitions import NamedTuple

# Field 22, starttime, counted after the command name that ends with the last ")": proc_pid_stat(5).
_START_TIME_FIELD = 19


WORK, WAIT, REQUEST = "work", "wait", "request"
SHORTEST_WAIT_MS = 1.0
MAX_REQUESTS = 20
"""Requests of one name that have a span of their own: the report stays small however often one is repeated."""


class Span(NamedTuple):
    """One stretch of the run: work, a wait or a request, of which `outcome` says how it ended.

    `requests` of them share a span above `MAX_REQUESTS`; its outcome is that of the last.
    """

    name: str
    start_ms: float
    end_ms: float
    kind: str = WORK
    outcome: str | None = None
    requests: int = 1


class Timeline:
    """Collects spans; `now_ms` counts from the start of the process, interpreter start-up included."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._waited_for: list[str] = []
        self._origin = _process_start()

    @property
    def waited_for(self) -> str:
        """What the run waits for, or was waiting for when it was cut short."""
        return " and ".join(self._waited_for) or "the file system"

    def now_ms(self) -> float:
        """Return the milliseconds since the process started."""
        return round((time.clock_gettime(time.CLOCK_BOOTTIME) - self._origin) * 1000, 1)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Record the block as one span, however it ends."""
        start = self.now_ms()
        try:
            yield
        finally:
            self.add(name, start)

    @contextmanager
    def waiting(self, subject: str) -> Iterator[None]:
        """Name what the block waits for; if it is cancelled, the name stays as the last word on the matter."""
        self._waited_for.append(subject)
        start = self.now_ms()
        try:
            yield
        except Exception:
            self._waited_for.remove(subject)
            raise
        finally:
            if self.now_ms() - start >= SHORTEST_WAIT_MS:
                self.add(subject, start, WAIT)
        self._waited_for.remove(subject)

    def add(self, name: str, start_ms: float, kind: str = WORK, outcome: str | None = None) -> None:
        """Record a span that ends now."""
        self.spans.append(Span(name=name, start_ms=start_ms, end_ms=self.now_ms(), kind=kind, outcome=outcome))

    def add_request(self, name: str, start_ms: float, outcome: str) -> None:
        """Record a request that ends now, with its outcome; those above `MAX_REQUESTS` share one span."""
        known = [number for number, span in enumerate(self.spans) if span.kind == REQUEST and span.name == name]
        if len(known) < MAX_REQUESTS:
            self.add(name, start_ms, REQUEST, outcome)
        else:
            last = self.spans[known[-1]]
            self.spans[known[-1]] = last._replace(end_ms=self.now_ms(), outcome=outcome, requests=last.requests + 1)


def _process_start() -> float:
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as stream:
        fields = stream.read().rpartition(")")[2].split()
    return int(fields[_START_TIME_FIELD]) / 100  # USER_HZ is 100 on every Linux architecture
