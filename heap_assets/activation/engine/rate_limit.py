"""Rate limits that hold for any window the destination may count, fixed or sliding.

A call counts from the moment it is sent until one window after its answer came. The destination received it in that
time, so no window of its own can hold more calls than ours. (A token bucket with burst b lets rate·window + b through,
which a sliding window refuses.)
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from heap_assets.activation.engine.destination import Rate

_MARGIN = 0.002


class Clock(Protocol):
    """The clock of a sender; simulated in tests."""

    def now(self) -> float:
        """Return monotonic seconds."""

    def wait(self, seconds: float, woken: threading.Condition | None = None) -> None:
        """Sleep; with a condition (held by the caller) until it is notified at the latest."""


class RealClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float, woken: threading.Condition | None = None) -> None:
        if woken is None:
            time.sleep(max(seconds, 0.0))
        else:
            woken.wait(max(seconds, 0.0))


class Window:
    """At most `allowed` units in any `seconds`."""

    def __init__(self, allowed: int, seconds: float) -> None:
        self.allowed = allowed
        self.seconds = seconds
        self._in_flight = 0
        self._answered: deque[tuple[float, int]] = deque()
        self._sum = 0

    def delay(self, now: float, units: int) -> float | None:
        """Return the seconds until `units` fit; None if that depends on calls still in flight."""
        while self._answered and self._answered[0][0] <= now:
            self._sum -= self._answered.popleft()[1]
        excess = self._in_flight + self._sum + units - self.allowed
        if excess <= 0:
            return 0.0
        for free_at, amount in self._answered:
            excess -= amount
            if excess <= 0:
                return free_at - now
        return None

    def sent(self, units: int) -> None:
        self._in_flight += units

    def answered(self, now: float, units: int) -> None:
        self._in_flight -= units
        self._sum += units
        self._answered.append((now + self.seconds + _MARGIN, units))


@dataclass
class _Rated:
    rate: Rate
    allowed: int


class Limiter:
    """All limits of one destination account, shared by all workers.

    `share`: share of the documented rates that is used.
    """

    def __init__(self, rates: tuple[Rate, ...], share: float, clock: Clock | None = None) -> None:
        self._clock = clock or RealClock()
        self._rates = [_Rated(rate, max(1, int(rate.rows * share))) for rate in rates]
        self._windows: dict[tuple[int, str], Window] = {}
        self._changed = threading.Condition()
        self._paused_until = 0.0
        self._closed = False

    def close(self) -> None:
        """Wake everybody who waits: the run is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def most_per_key(self) -> int | None:
        """Return how many rows of one key a batch may hold."""
        return min((r.allowed for r in self._rates if r.rate.per_key and not r.rate.per_call), default=None)

    def batch_rows(self, most: int) -> int:
        """Return the batch size, at most `most`, whose multiples fill the limits best."""
        for rated in self._rates:
            if not rated.rate.per_key and not rated.rate.per_call:
                batches = -(-rated.allowed // most)
                most = min(most, rated.allowed // batches)
        return max(1, most if (per_key := self.most_per_key()) is None else min(most, max(per_key, 1)))

    def pause(self, seconds: float) -> None:
        """Let nobody send for a while: the other side asked for it."""
        with self._changed:
            self._paused_until = max(self._paused_until, self._clock.now() + seconds)

    @contextmanager
    def permission(self, rows: int, keys: Mapping[str, int]) -> Iterator[None]:
        """Wait until a call of that many rows may be sent, and count it until its answer.

        `keys`: rows per key, of the keys whose own limits could matter.
        """
        units_by_window = list(self._units_by_window(rows, keys))
        with self._changed:
            while (delay := self._delay(units_by_window)) > 0 and not self._closed:
                self._clock.wait(delay, self._changed)
            for window, units in units_by_window:
                window.sent(units)
        try:
            yield
        finally:
            with self._changed:
                for window, units in units_by_window:
                    window.answered(self._clock.now(), units)
                self._changed.notify_all()

    def _units_by_window(self, rows: int, keys: Mapping[str, int]) -> Iterator[tuple[Window, int]]:
        for number, rated in enumerate(self._rates):
            subjects = keys if rated.rate.per_key else {"": rows}
            for key, amount in subjects.items():
                window = self._windows.setdefault((number, key), Window(rated.allowed, rated.rate.seconds))
                yield window, 1 if rated.rate.per_call else amount

    def _delay(self, units_by_window: list[tuple[Window, int]]) -> float:
        now = self._clock.now()
        delays = [window.delay(now, units) for window, units in units_by_window]
        window_delay = max((d for d in delays if d is not None), default=0.0)
        in_flight = 1.0 if None in delays else 0.0
        return max(window_delay, in_flight, self._paused_until - now)


def backoff(attempt: int, first: float, longest: float, jitter: random.Random) -> float:
    """Return the seconds to wait before the next attempt: doubled every time, with full jitter above a tenth."""
    ceiling = min(longest, first * 2 ** min(attempt, 30))
    return float(ceiling) * (0.1 + 0.9 * jitter.random())
