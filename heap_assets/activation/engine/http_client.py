"""One call to a destination: the transport that refuses hosts, what a status means, back-off and retries."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from heap_assets.activation.engine.destination import Request, Response
from heap_assets.activation.engine.lease import Lease, LeaseLostError
from heap_assets.activation.engine.rate_limit import Clock, Limiter, RealClock, backoff
from heap_assets.activation.engine.spec import Retry
from heap_assets.http_client import HttpClient, NoAnswer

FATAL = frozenset({401, 402, 403, 404, 405, 407, 410})
"""Statuses that neither a retry nor splitting the batch will change."""
TRANSIENT = frozenset({408, 425})
"""Statuses below 500 that are worth a retry."""
_READ = 4096


def retry_after(response: Response) -> float | None:
    """Return the seconds of a `Retry-After` header, None if there is none that can be read."""
    text = next((v for k, v in response.headers.items() if k.lower() == "retry-after"), "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def reason_of(response: Response) -> str:
    """Return status and text of an answer; redact it before it is cut or shown."""
    text = response.body[:_READ].decode("utf-8", "replace").strip()
    return f"HTTP {response.status}" + (f": {text}" if text not in ("", "{}") else "")


def hint(status: int) -> str:
    if status in (401, 403):
        return "the destination does not accept these credentials; check app_id or key"
    if status == 404:
        return "there is nothing at this address; check region and URL"
    return "the destination does not take calls of this kind at this address"


@dataclass(frozen=True)
class Unanswered:
    """A call without an answer.

    `arrived`: whether the destination may have received it. `hopeless`: whether the next attempt would end the same
    way: an impossible address, a host that is not allowed.
    """

    what: str
    arrived: bool
    hopeless: bool = False


class Transport:
    """Calls over pooled HTTP connections.

    `wire`: stands in for the network, for simulations on a virtual clock.
    """

    def __init__(self, clock: Clock | None = None, wire: httpx.BaseTransport | None = None) -> None:
        self.clock = clock or RealClock()
        self._client = HttpClient(wire)

    def send(self, request: Request, timeout: float) -> Response | Unanswered:
        """Make one call; it ends after `timeout` seconds whatever the other side does.

        A 2xx answer that cannot be read to its end counts as unanswered: it may name rows that were rejected.
        """
        headers = {"Content-Type": "application/json", **request.headers}
        answer = self._client.exchange(request.method, request.url, request.body, headers, timeout)
        if isinstance(answer, NoAnswer):
            return Unanswered(answer.reason, answer.arrived, answer.hopeless)
        response = Response(answer.status, answer.body, answer.headers)
        if answer.unreadable and response.accepted:
            return Unanswered(f"HTTP {answer.status} whose text is {answer.unreadable}", arrived=True)
        return response

    def close(self) -> None:
        self._client.close()


@dataclass
class RunStats:
    """Counts of a run. `stopped` is the reason why it ended early."""

    requests: int = 0
    retried: int = 0
    throttled: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    stopped: str | None = None


class RunStopped(Exception):
    """The run must end; rows of the call are `unknown` if they may have arrived."""

    def __init__(self, reason: str, *, arrived: bool, http_status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.arrived = arrived
        self.http_status = http_status


@dataclass
class _Attempts:
    """The failed attempts of one call."""

    failed: int = 0
    waits: int = 0
    arrived: bool = False
    throttled_since: float | None = None


class RetryingClient:
    """Makes calls for all workers of a run.

    `limiter`: shared by all workers, and paused for all of them by a 429.
    """

    def __init__(self, retry: Retry, limiter: Limiter, transport: Transport, lease: Lease) -> None:
        self.stats = RunStats()
        self.lock = threading.Lock()
        self._retry, self._limiter, self._transport, self._lease = retry, limiter, transport, lease
        self._stop = threading.Event()
        self._jitter = random.Random()  # noqa: S311  jitter is not a secret

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self, reason: str | None = None) -> None:
        """Let no further call begin."""
        with self.lock:
            self.stats.stopped = self.stats.stopped or reason
        self._stop.set()
        self._limiter.close()

    def call(self, request: Request, rows: int, heavy: Counter[str]) -> tuple[Response, int]:
        """Retry until there is a final answer; returns it with the number of the attempt.

        Raises RunStopped for 401, 403, 404 and their like, after all attempts, or after nothing but 429 for too long.
        """
        attempts = _Attempts()
        while True:
            answer = self._answer(request, rows, heavy, attempts)
            wait = backoff(attempts.waits, self._retry.first_wait, self._retry.longest_wait, self._jitter)
            attempts.waits += 1
            if isinstance(answer, Unanswered):
                attempts.arrived = attempts.arrived or answer.arrived
                if answer.hopeless:
                    raise RunStopped(answer.what, arrived=attempts.arrived)
                self._failed(answer.what, wait, attempts)
            elif answer.status == 429:
                self._throttled(answer, wait, attempts)
            elif answer.status in FATAL or 300 <= answer.status < 400:
                reason = f"HTTP {answer.status}: {hint(answer.status)}"
                raise RunStopped(reason, arrived=attempts.arrived, http_status=answer.status)
            elif answer.status >= 500 or answer.status < 200 or answer.status in TRANSIENT:
                attempts.arrived = True
                retry_in = min(retry_after(answer) or 0.0, self._retry.longest_retry_after)
                self._failed(f"HTTP {answer.status}", max(wait, retry_in), attempts)
            else:
                return answer, attempts.failed + 1

    def _answer(self, request: Request, rows: int, heavy: Counter[str], attempts: _Attempts) -> Response | Unanswered:
        with self._limiter.permission(rows, heavy):
            if self.stopped:
                raise RunStopped(self.stats.stopped or "the run stopped", arrived=attempts.arrived)
            try:
                self._lease.check()
            except LeaseLostError as error:
                raise RunStopped(str(error), arrived=attempts.arrived) from error
            with self.lock:
                self.stats.requests += 1
            return self._transport.send(request, self._retry.timeout)

    def _throttled(self, answer: Response, wait: float, attempts: _Attempts) -> None:
        """Pause everybody; a 429 uses up no attempt."""
        now = self._transport.clock.now()
        attempts.throttled_since = now if attempts.throttled_since is None else attempts.throttled_since
        if now - attempts.throttled_since > self._retry.throttled_for:
            reason = f"nothing but HTTP 429 for {self._retry.throttled_for:.0f} s"
            raise RunStopped(reason, arrived=attempts.arrived, http_status=429)
        with self.lock:
            self.stats.throttled += 1
        self._limiter.pause(min(retry_after(answer) or wait, self._retry.longest_retry_after))

    def _failed(self, what: str, wait: float, attempts: _Attempts) -> None:
        attempts.throttled_since = None
        attempts.failed += 1
        if attempts.failed >= self._retry.attempts:
            reason = f"{what}, {attempts.failed} times in a row: the destination is down"
            raise RunStopped(reason, arrived=attempts.arrived)
        with self.lock:
            self.stats.retried += 1
        until = self._transport.clock.now() + wait
        while (left := until - self._transport.clock.now()) > 0 and not self.stopped:
            self._transport.clock.wait(min(left, 0.5))
