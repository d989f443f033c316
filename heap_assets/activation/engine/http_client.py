"""One call until it settles something: limits, retries, patience with 429, and when to give up."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass, field

from heap_assets.activation.engine.destination import Request, Response
from heap_assets.activation.engine.http_status import PASSING, STOPPING, advice, retry_after
from heap_assets.activation.engine.lease import Lease, LeaseLostError
from heap_assets.activation.engine.rate_limit import Limiter, backoff
from heap_assets.activation.engine.spec import Retry
from heap_assets.activation.engine.transport import Transport, Unanswered


@dataclass
class Tally:
    """What happened so far, in numbers. `stopped` is the reason why the run ended early."""

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
    """What one call has been through."""

    failed: int = 0
    waits: int = 0
    arrived: bool = False
    throttled_since: float | None = None


class Caller:
    """Makes calls for all workers of a run.

    Parameters
    ----------
    limiter
        Shared by all workers, and paused for all of them by a 429.
    """

    def __init__(self, patience: Retry, limiter: Limiter, transport: Transport, lease: Lease) -> None:
        self.tally = Tally()
        self.lock = threading.Lock()
        self._patience, self._limiter, self._transport, self._lease = patience, limiter, transport, lease
        self._stop = threading.Event()
        self._jitter = random.Random()  # noqa: S311  jitter is not a secret

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self, reason: str | None = None) -> None:
        """Let no further call begin."""
        with self.lock:
            self.tally.stopped = self.tally.stopped or reason
        self._stop.set()
        self._limiter.close()

    def call(self, request: Request, rows: int, heavy: Counter[str]) -> tuple[Response, int]:
        """Call until there is an answer that settles something; returns it with the number of the attempt.

        Raises
        ------
        RunStopped
            For 401, 403, 404 and their like, after all attempts, or after nothing but 429 for too long.
        """
        so_far = _Attempts()
        while True:
            answer = self._answer(request, rows, heavy, so_far)
            wait = backoff(so_far.waits, self._patience.first_wait, self._patience.longest_wait, self._jitter)
            so_far.waits += 1
            if isinstance(answer, Unanswered):
                so_far.arrived = so_far.arrived or answer.arrived
                if answer.hopeless:
                    raise RunStopped(answer.what, arrived=so_far.arrived)
                self._failed(answer.what, wait, so_far)
            elif answer.status == 429:
                self._throttled(answer, wait, so_far)
            elif answer.status in STOPPING or 300 <= answer.status < 400:
                reason = f"HTTP {answer.status}: {advice(answer.status)}"
                raise RunStopped(reason, arrived=so_far.arrived, http_status=answer.status)
            elif answer.status >= 500 or answer.status < 200 or answer.status in PASSING:
                so_far.arrived = True
                asked = min(retry_after(answer) or 0.0, self._patience.longest_retry_after)
                self._failed(f"HTTP {answer.status}", max(wait, asked), so_far)
            else:
                return answer, so_far.failed + 1

    def _answer(self, request: Request, rows: int, heavy: Counter[str], so_far: _Attempts) -> Response | Unanswered:
        with self._limiter.permission(rows, heavy):
            if self.stopped:
                raise RunStopped(self.tally.stopped or "the run stopped", arrived=so_far.arrived)
            try:
                self._lease.check()
            except LeaseLostError as error:
                raise RunStopped(str(error), arrived=so_far.arrived) from error
            with self.lock:
                self.tally.requests += 1
            return self._transport.send(request, self._patience.timeout)

    def _throttled(self, answer: Response, wait: float, so_far: _Attempts) -> None:
        """Pause everybody; a 429 uses up no attempt."""
        now = self._transport.clock.now()
        so_far.throttled_since = now if so_far.throttled_since is None else so_far.throttled_since
        if now - so_far.throttled_since > self._patience.throttled_for:
            reason = f"nothing but HTTP 429 for {self._patience.throttled_for:.0f} s"
            raise RunStopped(reason, arrived=so_far.arrived, http_status=429)
        with self.lock:
            self.tally.throttled += 1
        self._limiter.pause(min(retry_after(answer) or wait, self._patience.longest_retry_after))

    def _failed(self, what: str, wait: float, so_far: _Attempts) -> None:
        so_far.throttled_since = None
        so_far.failed += 1
        if so_far.failed >= self._patience.attempts:
            reason = f"{what}, {so_far.failed} times in a row: the destination is down"
            raise RunStopped(reason, arrived=so_far.arrived)
        with self.lock:
            self.tally.retried += 1
        until = self._transport.clock.now() + wait
        while (left := until - self._transport.clock.now()) > 0 and not self.stopped:
            self._transport.clock.wait(min(left, 0.5))
