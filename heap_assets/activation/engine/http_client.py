"""One call to a destination: the transport that refuses hosts, what a status means, back-off and retries."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import httpx

from heap_assets.activation.engine.auth import AuthError
from heap_assets.activation.engine.destination import Row, Service
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.lease import LeaseLostError
from heap_assets.activation.engine.quota import Quotas, QuotaUsedUpError
from heap_assets.activation.engine.rate_limit import Clock, Limiter, RealClock, backoff
from heap_assets.activation.engine.spec import Retry
from heap_assets.activation.engine.verdict import Response, Trouble
from heap_assets.http_client import ANYWHERE, AllowedHosts, HttpClient, NoAnswer
from heap_assets.redaction import redact

LONGEST_REASON = 200
"""Characters that are kept of what a destination says."""


@dataclass(frozen=True)
class Unanswered:
    """A call without an answer.

    `arrived`: whether the destination may have received it. `hopeless`: whether the next attempt would end the same
    way: an impossible address, a host that is not allowed.
    """

    reason: str
    arrived: bool
    hopeless: bool = False


class Transport:
    """Calls over pooled HTTP connections.

    `wire`: stands in for the network, for simulations on a virtual clock. `allowed`: hosts that may be called.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        wire: httpx.BaseTransport | None = None,
        *,
        allowed: AllowedHosts = ANYWHERE,
    ) -> None:
        self.clock = clock or RealClock()
        self._client = HttpClient(wire, allowed=allowed)

    def send(self, request: Request, timeout: float) -> Response | Unanswered:
        """Make one call; it ends after `timeout` seconds whatever the other side does.

        A 2xx answer that cannot be read to its end counts as unanswered: it may name rows that were rejected.
        """
        headers = {"Content-Type": "application/json", **request.headers}
        longest = request.longest_answer
        answer = self._client.exchange(request.method, request.url, request.body, headers, timeout, longest)
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
    resumed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    unnamed: Counter[str] = field(default_factory=Counter)
    """Reason to number of rows that were refused without being named; among the outcomes they count as taken."""
    stopped: str | None = None


def accepted_rows(outcomes: Counter[str]) -> int:
    """Count the rows that the destination took."""
    return sum(outcomes[status] for status in ("acknowledged", "sent"))


class Permit(Protocol):
    """What says whether a call may still begin: a lease."""

    def check(self) -> None:
        """Raise LeaseLostError if none may."""


class RunStopped(Exception):
    """The run must end; rows of the call are `unknown` if they may have arrived."""

    def __init__(self, reason: str, *, arrived: bool, http_status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.arrived = arrived
        self.http_status = http_status


class AnswerLost(Exception):
    """A call may have been carried out, nobody knows, and it must not be made again."""


@dataclass
class _Attempts:
    """The failed attempts of one call."""

    failed: int = 0
    waits: int = 0
    arrived: bool = False
    renewed: bool = False
    throttled_since: float | None = None


class RetryingClient:
    """Makes calls for all workers of a run.

    `limiter`: shared by all workers, and paused for all of them by a throttled call. `lease`: whoever sends needs it.
    """

    def __init__(
        self,
        service: Service,
        retry: Retry,
        limiter: Limiter,
        transport: Transport,
        lease: Permit,
        quotas: Quotas | None = None,
    ) -> None:
        self.stats = RunStats()
        self.lock = threading.Lock()
        self._service, self._quotas = service, quotas
        self._retry, self._limiter, self._transport, self._lease = retry, limiter, transport, lease
        self._stop = threading.Event()
        self._jitter = random.Random()  # noqa: S311  jitter is not a secret
        self._lost = 0

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self, reason: str | None = None) -> None:
        """Let no further call begin."""
        with self.lock:
            self.stats.stopped = self.stats.stopped or reason
        self._stop.set()
        self._limiter.close()

    def call(self, request: Request, rows: Sequence[Row], heavy: Counter[str]) -> tuple[Response, int]:
        """Retry until there is a final answer; returns it with the number of the attempt.

        Raises RunStopped for what no retry will change, after all attempts, or after nothing but throttling for too
        long; AnswerLost for a call that must not be made twice.
        """
        attempts = _Attempts()
        while True:
            sent = self._authorised(request, attempts)
            answer = self._answer(sent, rows, heavy, attempts)
            wait = backoff(attempts.waits, self._retry.first_wait, self._retry.longest_wait, self._jitter)
            attempts.waits += 1
            if isinstance(answer, Unanswered):
                attempts.arrived = attempts.arrived or answer.arrived
                if answer.hopeless:
                    raise RunStopped(answer.reason, arrived=attempts.arrived)
                self._failed(request, answer.reason, wait, attempts, arrived=answer.arrived)
                continue
            self._heed(answer)
            trouble = self._trouble(request, answer, rows)
            if trouble is None:
                self._lost = 0
                return answer, attempts.failed + 1
            if trouble.kind == "throttled":
                seconds = min(trouble.seconds or wait, self._retry.longest_retry_after)
                self._throttled(trouble.reason, answer.status, seconds, attempts)
            elif trouble.kind == "retry":
                attempts.arrived = attempts.arrived or trouble.arrived
                seconds = max(wait, min(trouble.seconds or 0.0, self._retry.longest_retry_after))
                self._failed(request, trouble.reason, seconds, attempts, arrived=trouble.arrived)
            elif trouble.kind == "stop" or not self._renewed(sent, attempts):
                raise RunStopped(trouble.reason, arrived=attempts.arrived, http_status=answer.status)

    def log_in(self) -> None:
        """Have a token fetched, of a login that has any. Raises RunStopped if there is none."""
        self._authorised(Request("/"), _Attempts())

    def wait(self, seconds: float) -> None:
        """Let time pass, as long as the run goes on."""
        until = self._transport.clock.now() + seconds
        while (left := until - self._transport.clock.now()) > 0 and not self.stopped:
            self._transport.clock.wait(min(left, 0.5))

    def check(self, *, arrived: bool) -> None:
        """Raise RunStopped unless a step may begin."""
        if self.stopped:
            raise RunStopped(self.stats.stopped or "the run stopped", arrived=arrived)
        try:
            self._lease.check()
        except LeaseLostError as error:
            raise RunStopped(str(error), arrived=arrived) from error

    def _heed(self, answer: Response) -> None:
        """Pause everybody if an answer says that no calls are left."""
        for hint in self._service.limits.hints:
            left = hint.seconds_without_calls(answer.headers, time.time())
            if left is not None:
                self._limiter.pause(min(left, self._retry.longest_retry_after))

    def _trouble(self, request: Request, answer: Response, rows: Sequence[Row]) -> Trouble | None:
        if answer.status in request.reads:
            return None
        try:
            trouble = self._service.trouble(answer)
        except Exception as error:
            raise unreadable(self._service, answer, error) from error
        if trouble is None or trouble == Trouble.of_status(answer):
            return trouble
        return replace(trouble, reason=redact(trouble.reason, personal(rows), longest=LONGEST_REASON))

    def _authorised(self, request: Request, attempts: _Attempts) -> Request:
        if self._service.auth is None:
            return request
        try:
            return self._service.auth.applied(request, self._fetch)
        except AuthError as error:
            raise RunStopped(str(error), arrived=attempts.arrived) from error

    def _fetch(self, request: Request) -> Response:
        """Make a call of the login."""
        for attempt in range(self._retry.attempts):
            answer = self._transport.send(request, self._retry.timeout)
            if isinstance(answer, Unanswered):
                reason, hopeless = answer.reason, answer.hopeless
            else:
                trouble = Trouble.of_status(answer)
                if trouble is None or trouble.kind == "stop":
                    return answer
                reason, hopeless = trouble.reason, False
            if hopeless or self.stopped:
                break
            self.wait(backoff(attempt, self._retry.first_wait, self._retry.longest_wait, self._jitter))
        raise AuthError(f"the login cannot be reached: {reason}")

    def _renewed(self, sent: Request, attempts: _Attempts) -> bool:
        """Have the token renewed that a call was refused with, once."""
        if attempts.renewed or self._service.auth is None or not self._service.auth.expire(sent):
            return False
        attempts.renewed = True
        return True

    def _answer(
        self, request: Request, rows: Sequence[Row], heavy: Counter[str], attempts: _Attempts
    ) -> Response | Unanswered:
        counted = (0 if request.only_reads else len(rows)) if request.rows is None else request.rows
        if self._quotas is not None:
            try:
                self._quotas.take(counted, request.label)
            except QuotaUsedUpError as error:
                raise RunStopped(str(error), arrived=attempts.arrived) from error
        with self._limiter.permission(counted, heavy if counted else {}, len(request.body), request.label):
            self.check(arrived=attempts.arrived)
            with self.lock:
                self.stats.requests += 1
            return self._transport.send(request, self._retry.timeout)

    def _throttled(self, reason: str, status: int, seconds: float, attempts: _Attempts) -> None:
        """Pause everybody; it uses up no attempt."""
        now = self._transport.clock.now()
        attempts.throttled_since = now if attempts.throttled_since is None else attempts.throttled_since
        if now - attempts.throttled_since > self._retry.throttled_for:
            reason = f"nothing but {reason} for {self._retry.throttled_for:.0f} s"
            raise RunStopped(reason, arrived=attempts.arrived, http_status=status)
        with self.lock:
            self.stats.throttled += 1
        self._limiter.pause(seconds)

    def _failed(self, request: Request, reason: str, seconds: float, attempts: _Attempts, *, arrived: bool) -> None:
        attempts.throttled_since = None
        attempts.failed += 1
        if arrived and not self._is_repeatable(request):
            with self.lock:
                self._lost += 1
                is_down = self._lost >= self._retry.attempts
            if not is_down:
                raise AnswerLost(reason)
        elif attempts.failed < self._retry.attempts:
            with self.lock:
                self.stats.retried += 1
            self.wait(seconds)
            return
        count = max(self._lost, attempts.failed)
        raise RunStopped(f"{reason}, {count} times in a row: the destination is down", arrived=attempts.arrived)

    def _is_repeatable(self, request: Request) -> bool:
        if request.repeatable is None:
            return request.only_reads or self._service.dedupe.kind != "none"
        return request.repeatable


def personal(rows: Sequence[Row]) -> set[str]:
    """Return the keys and values of rows: a destination's reason may repeat those of any row of its call."""
    keys = {row.key for row in rows} | {str(row.person) for row in rows}
    keys |= {row.identifier for row in rows if row.identifier}
    return keys | {str(value) for row in rows for value in (*row.values.values(), *row.extra.values())}


def unreadable(service: Service, response: Response, error: Exception) -> RunStopped:
    """Return what ends a run whose destination's own code fails over an answer: nobody knows which rows were taken."""
    reason = f"HTTP {response.status}, whose text {service.kind} cannot read ({type(error).__name__})"
    return RunStopped(reason, arrived=True, http_status=response.status)
